"""When steps have ended, in random pipelines whose works end in random order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sluiceway_orchestrator.pipelines.progress import Progress
from sluiceway_orchestrator.plan import Pipeline, Step, StepKind


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """Roots, steps of steps, calls of regions, calls before all, and calls after any of these."""
    steps: list[Step] = []
    count = draw(st.integers(1, 9))
    for index in range(count):
        feeders = [step.index for step in steps if step.kind is not StepKind.CALL]
        finders = [step.index for step in steps if step.kind is StepKind.DETECT]
        kinds = ["detect", "recognize"] + ["first"] * bool(steps) + ["of", "after"] * bool(feeders)
        kind = draw(st.sampled_from(kinds)) if index else draw(st.sampled_from(["detect", "recognize"]))
        name = f"s{index}"
        if kind in ("detect", "recognize"):
            of = draw(st.none() | st.sampled_from(finders)) if finders else None
            steps.append(Step(index, name, StepKind(kind), stage="x", of=of))
        elif kind == "first":
            steps.append(Step(index, name, StepKind.CALL, api="x"))
        elif kind == "of":
            steps.append(Step(index, name, StepKind.CALL, api="x", of=draw(st.sampled_from(feeders))))
        else:
            after = draw(st.sets(st.integers(0, index - 1), min_size=1, max_size=3))
            steps.append(Step(index, name, StepKind.CALL, api="x", after=tuple(sorted(after))))
    return Pipeline("p", tuple(steps))


def feeders_of(pipeline: Pipeline, index: int) -> set[int]:
    """All that something could come of for this step."""
    step = pipeline.steps[index]
    direct = {*step.after, *(() if step.of is None else (step.of,))}
    return direct.union(*(feeders_of(pipeline, other) for other in direct))


@given(pipeline=pipelines(), data=st.data())
def test_a_call_after_others_begins_once_when_all_that_feeds_it_has_ended(
    pipeline: Pipeline, data: st.DataObject
) -> None:
    progress = Progress(pipeline)
    # Open works, each a step; whoever ends may have opened works of steps that work on its regions.
    works = list(pipeline.roots)
    begun: list[int] = []
    answers = 0
    while works:
        step = works.pop(data.draw(st.integers(0, len(works) - 1)))
        if step.kind is not StepKind.CALL and answers < 40:
            for child in pipeline.children[step.index]:
                parts = data.draw(st.integers(0, 2))
                if parts:
                    progress.begin(child, parts)
                    works += [child] * parts
                answers += parts
        ready = progress.end(step)
        open_steps = {work.index for work in works}
        for call in ready:
            assert not open_steps & feeders_of(pipeline, call.index), "begun before what feeds it had ended"
            assert not (feeders_of(pipeline, call.index) & {other.index for other in ready}), "at the same moment"
            begun.append(call.index)
        works += ready
    assert sorted(begun) == [step.index for step in pipeline.last_calls], "each once, and none left out"
    assert all(progress.has_ended(step.index) for step in pipeline.steps)


def test_a_step_has_not_ended_while_what_feeds_it_may_still_answer() -> None:
    text = Step(0, "text", StepKind.DETECT, stage="d")
    words = Step(1, "words", StepKind.RECOGNIZE, stage="r", of=0)
    book = Step(2, "book", StepKind.CALL, api="a", after=(1,))
    progress = Progress(Pipeline("p", (text, words, book)))
    assert not progress.has_ended(1)
    progress.begin(words)
    assert progress.end(text) == ()
    assert progress.end(words) == (book,)
    assert not progress.has_ended(2)
    assert progress.end(book) == ()
    assert progress.has_ended(2)
