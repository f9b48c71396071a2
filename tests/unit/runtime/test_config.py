"""Configuration: sources, precedence, and faults that name their keys, all at once."""

from pathlib import Path

import pytest
from pydantic import BaseModel, Field, field_validator
from sluiceway_runtime.config import (
    ServerConfig,
    StageConfig,
    load_section,
    read_file,
    require_known_variables,
    section_values,
)
from sluiceway_runtime.errors import ConfigurationError
from sluiceway_runtime.server.security import SecurityConfig


class Stage(StageConfig):
    port: int = 50052
    operations_port: int = 9052


def load(tables: dict | None = None, environment: dict[str, str] | None = None, **overrides: object) -> Stage:
    return load_section(Stage, "detection", tables=tables or {}, environment=environment or {}, overrides=overrides)


def test_defaults_need_no_file() -> None:
    assert load().port == 50052


def test_precedence_is_override_environment_file_default() -> None:
    tables = {"detection": {"port": 1, "max_batch": 2, "queue_items": 3}}
    environment = {"SLUICEWAY_DETECTION__PORT": "10", "SLUICEWAY_DETECTION__MAX_BATCH": "20"}
    config = load(tables, environment, port=100)
    assert (config.port, config.max_batch, config.queue_items) == (100, 20, 3)


def test_other_sections_and_variables_do_not_interfere() -> None:
    assert (
        load({"recognition": {"port": 7}}, {"SLUICEWAY_RECOGNITION__PORT": "8", "SLUICEWAY_CACHE": "x"}).port == 50052
    )


def test_a_variable_for_one_key_of_a_table_wins_over_one_for_the_whole_table_whichever_is_set_first() -> None:
    whole = {"SLUICEWAY_SECURITY__CLIENTS": '{"eye": {"token_env": "EYE", "max_concurrent": 1}}'}
    one_key = {"SLUICEWAY_SECURITY__CLIENTS__EYE__MAX_CONCURRENT": "8"}
    for environment in (whole | one_key, one_key | whole):
        config = load_section(SecurityConfig, "security", tables={}, environment=environment)
        assert config.clients["eye"].max_concurrent == 8


def test_lists_and_keys_of_tables_can_be_overridden() -> None:
    overrides = {"mutual": "[]", "clients.eye.token_env": "EYE"}
    config = load_section(SecurityConfig, "security", tables={}, environment={}, overrides=overrides)
    assert config.mutual == ()
    assert config.clients["eye"].token_env == "EYE"


def test_a_variable_that_nobody_reads_is_refused_by_name() -> None:
    known = {
        "SLUICEWAY_DETECTION__WORKERS": "2",
        "SLUICEWAY_CACHE": "x",
        "SLUICEWAY_DETECTION_SERVICE_HOST": "10.0.0.1",
        "SLUICEWAY_STAGES__PLATES__PORT": "1",
        "SLUICEWAY_PIPELINES__READ": "[]",
    }
    require_known_variables(known | {"OTHER__NAME": "x"})
    with pytest.raises(ConfigurationError) as caught:
        require_known_variables(known | {"SLUICEWAY_DETECTON__WORKERS": "2", "SLUICEWAY_API__SHOP__URL": "x"})
    text = str(caught.value)
    assert "SLUICEWAY_DETECTON__WORKERS" in text
    assert "SLUICEWAY_API__SHOP__URL" in text
    assert "SLUICEWAY_DETECTION" not in text
    # Names are read as they are written: of this one, nothing would be.
    with pytest.raises(ConfigurationError, match="SLUICEWAY_Detection__PORT"):
        require_known_variables(known | {"SLUICEWAY_Detection__PORT": "1"})


def test_a_table_may_come_from_file_and_environment() -> None:
    tables = {"pipelines": {"read": {"steps": [{"name": "text"}]}, "park": {"steps": []}}}
    environment = {
        "SLUICEWAY_PIPELINES__PARK__STEPS": '[{"name": "cars"}]',
        "SLUICEWAY_PIPELINES__COUNT": '{"steps": [{"name": "people"}]}',
    }
    assert section_values("pipelines", tables=tables, environment=environment) == {
        "read": {"steps": [{"name": "text"}]},
        "park": {"steps": [{"name": "cars"}]},
        "count": {"steps": [{"name": "people"}]},
    }
    assert tables["pipelines"]["park"] == {"steps": []}, "what the file says is not changed"


def test_every_fault_is_told_at_once_by_key() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"detection": {"prot": 1, "workers": -1}}, {"SLUICEWAY_DETECTION__DEVICE": "tpu"})
    text = str(caught.value)
    assert "detection.prot: unknown key" in text
    assert "detection.workers" in text
    assert "detection.device" in text


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        # A key that takes a number or a word has one fault, by its own name.
        ({"workers": 0}, ["detection.workers: Input should be greater than or equal to 1; or Input should be 'auto'"]),
        ({"names": "a"}, ['detection.names: must be a list, such as ["a", "b"]']),
        ({"names": ["a", 7]}, ["detection.names.1: Input should be a valid string"]),
        ({"names": []}, ["detection.names: Tuple should have at least 1 item after validation, not 0"]),
        ({"names": [7]}, ["detection.names.0: Input should be a valid string"]),
        ({"inner": 8080}, ["detection.inner: must be a table of keys"]),
        ({"inner": {"size": -1}}, ["detection.inner.size: must not be negative"]),
    ],
)
def test_a_fault_names_a_key_that_exists_and_what_it_takes(tables: dict[str, object], told: list[str]) -> None:
    class Inner(BaseModel):
        size: int = 0

        @field_validator("size")
        @classmethod
        def _size(cls, value: int) -> int:
            if value < 0:
                raise ValueError("must not be negative")
            return value

    class Section(Stage):
        names: tuple[str, ...] = Field(("a",), min_length=1)
        inner: Inner = Inner()

    with pytest.raises(ConfigurationError) as caught:
        load_section(Section, "detection", tables={"detection": tables}, environment={})
    assert str(caught.value).splitlines() == told


@pytest.mark.parametrize("cores", ["0", "0-3", "0-3,6", "1,2,9"])
def test_core_lists(cores: str) -> None:
    assert load(cores=cores).cores == cores


@pytest.mark.parametrize("cores", ["", "a", "0-", "-1", "0;1", "3-1", "0,9-8"])
def test_bad_core_lists(cores: str) -> None:
    with pytest.raises(ConfigurationError, match=r"detection\.cores"):
        load(cores=cores)


def test_sections_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1


def test_missing_default_file_is_fine_but_a_named_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_file(None) == {}
    with pytest.raises(ConfigurationError, match="nowhere"):
        read_file(tmp_path / "nowhere.toml")


def test_the_mark_that_some_editors_put_first_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "sluiceway.toml"
    file.write_text("[detection]\nport = 1\n", encoding="utf-8-sig")
    assert read_file(file) == {"detection": {"port": 1}}


def test_unknown_sections_and_broken_toml_are_faults(tmp_path: Path) -> None:
    file = tmp_path / "sluiceway.toml"
    file.write_text("[detektion]\nport = 1\n[recog]\n")
    with pytest.raises(ConfigurationError) as caught:
        read_file(file)
    assert "[detektion]" in str(caught.value)
    assert "[recog]" in str(caught.value)
    file.write_text("[detection")
    with pytest.raises(ConfigurationError, match=r"sluiceway\.toml"):
        read_file(file)


def test_the_maximum_deadline_and_message_size_have_sane_defaults() -> None:
    config = ServerConfig(port=0, operations_port=0)
    assert config.default_deadline_s <= config.max_deadline_s
    assert config.max_message_bytes == 64 * 2**20


@pytest.mark.parametrize(("given", "workers"), [("auto", "auto"), ("4", 4), (4, 4)])
def test_a_number_or_auto_may_be_written_out(given: object, workers: object) -> None:
    section = load_section(
        StageConfig, "x", tables={"x": {"port": 1, "operations_port": 2, "workers": given}}, environment={}
    )
    assert section.workers == workers
