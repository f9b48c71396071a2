"""What `[pipelines.NAME]` may say: every fault by its key, and what comes of tables without any."""

from __future__ import annotations

from typing import Any

import pytest
from sluiceway_orchestrator.pipelines.load import ApiFacts, load_pipelines
from sluiceway_orchestrator.plan import Pipeline, StepKind
from sluiceway_runtime.errors import ConfigurationError

STAGES = {"detection": "detection", "recognition": "recognition", "plates": "detection"}
APIS = {
    "registry": ApiFacts(("plate",), brings_values=True),
    "ledger": ApiFacts((), brings_values=True),
    "camera": ApiFacts(("id",), brings_values=False),
    "own": ApiFacts(),
}
TEXT = {"name": "text", "stage": "detection"}
WORDS = {"name": "words", "stage": "recognition", "of": "text"}


def loaded(*steps: dict[str, Any], **more: Any) -> dict[str, Pipeline]:
    return load_pipelines({"pipelines": {"p": {"steps": list(steps)}} | more}, STAGES, APIS)


# What is wrong, to the steps, and the key and a part of the words.
FAULTS: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "no step at all": ([], "pipelines.p.steps", "at least 1"),
    "a key that is none": ([TEXT | {"colour": 1}], "pipelines.p.steps.text.colour", "unknown key"),
    "a step without a name": ([{"stage": "detection"}], "pipelines.p.steps.0.name", "required"),
    "a name that is none": ([TEXT | {"name": "Text-1"}], "pipelines.p.steps.Text-1.name", "small letters"),
    "two steps of one name": ([TEXT, TEXT], "pipelines.p.steps.text.name", "two steps have it"),
    "neither stage nor API": ([TEXT, {"name": "x"}], "pipelines.p.steps.x", "exactly one of `stage` and `api`"),
    "stage and API": ([TEXT | {"api": "ledger"}], "pipelines.p.steps.text", "exactly one of `stage` and `api`"),
    "a stage that is none": ([{"name": "t", "stage": "no"}], "pipelines.p.steps.t.stage", "no stage is called 'no'"),
    "an API that is none": ([TEXT, {"name": "x", "api": "no"}], "pipelines.p.steps.x.api", "no API is called 'no'"),
    "of nothing": ([TEXT | {"of": "no"}], "pipelines.p.steps.text.of", "nothing feeds it"),
    "after nothing": (
        [TEXT, {"name": "x", "api": "ledger", "after": ["no"]}], "pipelines.p.steps.x.after", "nothing feeds it",
    ),
    "a stage of what reads": (
        [TEXT, WORDS, {"name": "x", "stage": "plates", "of": "words"}], "pipelines.p.steps.x.of", "finds no regions",
    ),
    "a stage of a call": (
        [TEXT, {"name": "x", "api": "ledger"}, WORDS | {"of": "x"}], "pipelines.p.steps.words.of", "finds no regions",
    ),
    "a call of a call": (
        [TEXT, {"name": "x", "api": "ledger"}, {"name": "y", "api": "ledger", "of": "x"}],
        "pipelines.p.steps.y.of", "is a call",
    ),
    "a call of what reads the page": (
        [{"name": "w", "stage": "recognition"}, {"name": "y", "api": "ledger", "of": "w"}],
        "pipelines.p.steps.y.of", "write after = ['w']",
    ),
    "of and after": (
        [TEXT, {"name": "x", "api": "ledger", "of": "text", "after": ["text"]}], "pipelines.p.steps.x", "one of them",
    ),
    "a stage after others": ([TEXT, WORDS | {"after": ["text"]}], "pipelines.p.steps.words.after", "only calls wait"),
    "a stage with parameters": ([TEXT | {"params": {"a": "b"}}], "pipelines.p.steps.text.params", "only calls"),
    "a detection with a model": ([TEXT | {"model": "m"}], "pipelines.p.steps.text.model", "only recognition"),
    "a call with a model": (
        [TEXT, {"name": "x", "api": "ledger", "model": "m"}], "pipelines.p.steps.x.model", "only recognition",
    ),
    "classes where none are": (
        [{"name": "w", "stage": "recognition", "classes": ["a"]}], "pipelines.p.steps.w.classes", "without `of`",
    ),
    "except_classes on the page": (
        [TEXT | {"except_classes": ["a"]}], "pipelines.p.steps.text.except_classes", "without `of`",
    ),
    "classes twice": (
        [TEXT | {"classes": ["a"], "options": {"classes": ["b"]}}],
        "pipelines.p.steps.text.options.classes", "says the same",
    ),
    "an option of another kind": (
        [TEXT | {"options": {"top_k": 3}}], "pipelines.p.steps.text.options.top_k", "no such option",
    ),
    "options of a call": (
        [TEXT, {"name": "x", "api": "ledger", "options": {"iou": 0.5}}],
        "pipelines.p.steps.x.options.iou", "no such option",
    ),
    "an option out of range": (
        [TEXT | {"options": {"confidence": 0}}], "pipelines.p.steps.text.options.confidence", "greater than 0",
    ),
    "an image size that is no multiple": (
        [TEXT | {"options": {"image_size": 100}}], "pipelines.p.steps.text.options.image_size", "multiple of 32",
    ),
    "an on_error that is none": (
        [TEXT | {"on_error": "retry"}], "pipelines.p.steps.text.on_error", "'fail' or 'skip'",
    ),
    "an API with an image alone, of a region": (
        [TEXT, {"name": "x", "api": "camera", "of": "text", "params": {"id": "1"}}],
        "pipelines.p.steps.x.api", "an image alone",
    ),
    "a parameter that is none": (
        [TEXT, {"name": "x", "api": "registry", "of": "text", "params": {"plate": "a", "b": "c"}}],
        "pipelines.p.steps.x.params.b", "no such parameter",
    ),
    "a parameter that is missing": (
        [TEXT, {"name": "x", "api": "registry", "of": "text"}], "pipelines.p.steps.x.params", "without plate",
    ),
    "a placeholder that is none": (
        [TEXT, {"name": "x", "api": "registry", "of": "text", "params": {"plate": "{colour}"}}],
        "pipelines.p.steps.x.params.plate", "{colour} is not known",
    ),
    "a region's placeholder in a call about the source": (
        [TEXT, {"name": "x", "api": "registry", "after": ["text"], "params": {"plate": "{text}"}}],
        "pipelines.p.steps.x.params.plate", "{text} is not known",
    ),
    "calls alone": ([{"name": "x", "api": "ledger"}], "pipelines.p.steps", "none is done by a stage"),
    "a circle of detections": (
        [TEXT | {"of": "b"}, {"name": "b", "stage": "plates", "of": "text"}],
        "pipelines.p.steps.text", "text <- b <- text",
    ),
    "a circle of one": ([TEXT | {"of": "text"}], "pipelines.p.steps.text", "text <- text"),
    "a circle of calls": (
        [TEXT, *[{"name": a, "api": "ledger", "after": [b]} for a, b in ("xy", "yx")]],
        "pipelines.p.steps.x", "x <- y <- x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_told_by_its_key(name: str) -> None:
    steps, key, words = FAULTS[name]
    with pytest.raises(ConfigurationError) as caught:
        loaded(*steps)
    lines = [line for line in str(caught.value).splitlines() if line.startswith(f"{key}: ")]
    assert len(lines) == 1, str(caught.value)
    assert words in lines[0]


def test_all_faults_of_all_pipelines_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(
            TEXT | {"model": "m", "colour": 1},
            other={"steps": [{"name": "a", "stage": "no"}, {"name": "b", "stage": "nor"}]},
            Third={"steps": [TEXT]},
            fourth=3,
        )
    keys = [line.split(": ")[0] for line in str(caught.value).splitlines()]
    expected = ["p.steps.text.colour", "other.steps.a.stage", "other.steps.b.stage", "Third", "fourth"]
    assert {f"pipelines.{key}" for key in expected} <= set(keys)
    with pytest.raises(ConfigurationError, match="pipelines: must hold a table"):
        load_pipelines({"pipelines": [1]}, STAGES, APIS)


def test_without_any_configuration_text_is_found_and_read() -> None:
    found = load_pipelines({}, STAGES, {})
    assert list(found) == ["read"]
    text, words = found["read"].steps
    assert (text.name, text.kind, text.stage, text.of, text.on_error) == (
        "text", StepKind.DETECT, "detection", None, "fail",
    )  # fmt: skip
    assert (words.name, words.kind, words.stage, words.of, words.on_error) == (
        "words", StepKind.RECOGNIZE, "recognition", 0, "skip",
    )  # fmt: skip
    assert words.wants("textline")
    assert not words.wants("image")
    # It can be written anew, and others beside it leave it as it is.
    assert [step.name for step in loaded(TEXT)["read"].steps] == ["text", "words"]
    own = loaded(TEXT, read={"steps": [TEXT | {"name": "own"}]})
    assert [step.name for step in own["read"].steps] == ["own"]


def test_steps_come_in_an_order_in_which_none_is_before_what_feeds_it() -> None:
    pipeline = loaded(
        {"name": "book", "api": "ledger", "after": ["owner", "words"]},
        {"name": "owner", "api": "own", "of": "words", "params": {"plate": "{text}"}},
        WORDS,
        {"name": "first", "api": "registry", "params": {}},
        TEXT,
    )["p"]
    names = [step.name for step in pipeline.steps]
    assert names == ["text", "words", "owner", "book", "first"]
    for index, step in enumerate(pipeline.steps):
        assert step.index == index
        assert all(feeder < index for feeder in (*step.after, *(() if step.of is None else (step.of,))))
    assert [step.name for step in pipeline.first_calls] == ["first"]
    assert [step.name for step in pipeline.last_calls] == ["book"]
    assert [step.name for step in pipeline.roots] == ["text"]
    assert pipeline.stages == ("detection", "recognition")
    assert pipeline.tells_callers
    # What the source has to bring, and how failures count.
    assert {step.name: step.source_params for step in pipeline.steps if step.source_params} == {"first": ("plate",)}
    assert {step.name: step.on_error for step in pipeline.steps} == {
        "text": "fail", "words": "skip", "owner": "skip", "book": "skip", "first": "skip",
    }  # fmt: skip


def test_classes_of_a_step_on_the_page_are_its_options_and_those_of_others_choose_among_regions() -> None:
    page, inside = loaded(
        TEXT | {"classes": ["car"], "options": {"confidence": 0.5}},
        {"name": "plate", "stage": "plates", "of": "text", "classes": ["car"]},
    )["p"].steps
    assert page.options == {"confidence": 0.5, "classes": ("car",)}
    assert inside.options == {}
    assert inside.wants("car")
    assert not inside.wants("bus")


def test_a_job_that_wants_regions_alone_runs_what_finds_some_and_what_that_begins_with() -> None:
    pipeline = loaded(
        {"name": "first", "api": "ledger"},
        TEXT,
        WORDS,
        {"name": "inside", "stage": "plates", "of": "text"},
        {"name": "again", "stage": "recognition", "of": "inside"},
        {"name": "last", "api": "ledger", "after": ["words"]},
    )["p"]
    detecting = pipeline.detecting
    assert [step.name for step in detecting.steps] == ["first", "text", "inside"]
    assert [step.index for step in detecting.steps] == [0, 1, 2]
    assert detecting.steps[2].of == 1
    assert not detecting.last_calls
    # The same each time, since versions are remembered by it.
    assert pipeline.detecting is detecting
