"""Make docs/configuration.md: `python deploy/configuration.py`. Every key, from the models that read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python
from sluiceway_detection.config import DetectionConfig, DetectionHttpConfig
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.apis import ApiConfig
from sluiceway_orchestrator.config.http import HttpConfig
from sluiceway_orchestrator.config.pipelines import StepConfig, StepOptionsConfig
from sluiceway_orchestrator.config.scaler import ScalerConfig
from sluiceway_recognition.config import ModelConfig, RecognitionConfig
from sluiceway_runtime.config import ModelsConfig, ServerConfig, StageConfig
from sluiceway_runtime.server.security import ClientConfig, SecurityConfig

TARGET = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = """\
# Every key

Made by `deploy/configuration.py` from the models that read the configuration; a test holds it against them.

One file, `sluiceway.toml` in the working directory or where `--config` says, serves all servers. Every key may be a
variable of the environment as well, which wins over the file: `SLUICEWAY_DETECTION__WORKERS=4`, inner tables with two
more underscores (`SLUICEWAY_ORCHESTRATOR__HTTP__PORT=0`), lists and tables as JSON
(`SLUICEWAY_RECOGNITION__MODELS='["ppocrv6-tiny"]'`). Only `[api.NAME]` is read from the file alone. Whatever is wrong,
also a name that nobody knows, is told by key before anything starts.
"""
# What no model says: tables by name.
STAGES = """\
## [stages.NAME]

A further stage by name. It takes every key of its kind's section, `[detection]` or `[recognition]`, and besides:

| key | values | default | |
|---|---|---|---|
| `kind` | `detection` or `recognition` | must be given | What the stage is. |
| `target` | text | | Where it is, like `orchestrator.detection`, unless `sluiceway up`, compose or the chart says. |

A name is small letters, digits and single underscores. Variables are `SLUICEWAY_STAGES__NAME__KEY`; a stage may be
there by its variables alone.
"""
HTTP_OF_STAGES = (
    "The Open Inference Protocol over HTTP, see [clients.md](clients.md#triton-and-kserve-clients). "
    "`[recognition.http]` and `http` of every `[stages.NAME]` have the same keys; the port of recognition is 8053."
)
# Written as text, where the schema of what it becomes would say otherwise.
SHORT_FORMS = {"shapes": "list of text"}
TABLE = ("| key | values | default | |", "|---|---|---|---|")
# Above this, digits are grouped as TOML allows.
GROUPED = 100_000
SECTIONS: tuple[tuple[str, str, type[BaseModel], type[BaseModel] | None], ...] = (
    ("Every server", "Keys of every stage and of `[orchestrator]` alike.", ServerConfig, None),
    (
        "Every stage",
        "Keys of `[detection]`, `[recognition]` and every `[stages.NAME]` alike.",
        StageConfig,
        ServerConfig,
    ),
    ("[detection]", "", DetectionConfig, StageConfig),
    (
        "[detection.http]",
        HTTP_OF_STAGES,
        DetectionHttpConfig,
        None,
    ),
    ("[recognition]", "", RecognitionConfig, StageConfig),
    (
        "[[recognition.models]]",
        "One table for each model; a plain name in `recognition.models` is one of the registry.",
        ModelConfig,
        None,
    ),
    ("[orchestrator]", "", OrchestratorConfig, ServerConfig),
    ("[orchestrator.http]", "The public HTTP port, see [http.md](http.md).", HttpConfig, None),
    ("[orchestrator.scaler]", "For KEDA, see [kubernetes.md](kubernetes.md#autoscaling).", ScalerConfig, None),
    (
        "[pipelines.NAME]",
        "`steps` is a list of such tables, see [pipelines.md](pipelines.md). `read` is there without being written.",
        StepConfig,
        None,
    ),
    ("options of a step", "As in the contract; each kind of stage takes its own.", StepOptionsConfig, None),
    ("[api.NAME]", "A source `api:NAME?param=value`, or what a step calls.", ApiConfig, None),
    ("[models]", "", ModelsConfig, None),
    ("[security]", "See [security.md](security.md).", SecurityConfig, None),
    ("[security.clients.NAME]", "", ClientConfig, None),
)


def words(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a key takes, from its JSON schema."""
    if "$ref" in node:
        return words(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    if choices := [choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"]:
        return " or ".join(dict.fromkeys(words(choice, definitions) for choice in choices))
    if values := node.get("enum", [node["const"]] if "const" in node else []):
        return " or ".join(f"`{value}`" for value in values)
    match node.get("type"):
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            return ("whole number" if kind == "integer" else "number") + bounds(node)
        case "string":
            return "path" if node.get("format") == "path" else "text"
        case "array":
            inner = node.get("items") or {}
            return f"list of {words(inner, definitions)}" if inner else "list"
        case "object":
            return "table"
    return "any"


def number(value: float) -> str:
    """A number as it may stand in the file."""
    return f"{int(value):_}" if value >= GROUPED else f"{value:g}"


def bounds(node: Mapping[str, Any]) -> str:
    """Bounds of a number, as far as it has any."""
    least, most, above = node.get("minimum"), node.get("maximum"), node.get("exclusiveMinimum")
    step = f", a multiple of {node['multipleOf']}" if "multipleOf" in node else ""
    if above is not None:
        return f" above {number(above)}" + (f", at most {number(most)}" if most is not None else "") + step
    if least is not None and most is not None:
        return f", {number(least)} to {number(most)}{step}"
    return (f", {number(least)} or more" if least is not None else "") + step


def default(field: Any) -> str:
    """The default as it would stand in the file."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "must be given"
    if value is None:
        return ""
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"`{number(value)}`"
    plain = to_jsonable_python(value)
    if isinstance(plain, list) and plain and isinstance(plain[0], dict):
        return f"`{json.dumps([item['name'] for item in plain])}`"
    return f"`{json.dumps(plain, ensure_ascii=False)}`"


def rows(model: type[BaseModel], without: type[BaseModel] | None) -> Iterator[str]:
    """A line of the table for each key that is not one of `without`, or has another default or meaning here."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    for key, field in model.model_fields.items():
        if model is ServerConfig and field.is_required():
            continue  # each server has its own default
        other = without.model_fields.get(key) if without else None
        if other is not None and (default(other), other.description) == (default(field), field.description):
            continue
        text = SHORT_FORMS.get(key) or words(schema["properties"][key], definitions)
        cells = (f"`{key}`", text, default(field), field.description or "")
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def text() -> str:
    """The whole document."""
    parts = [HEAD]
    for title, about, model, without in SECTIONS:
        lines = [
            f"## {title}",
            "",
            *([about, ""] if about else ()),
            "| key | values | default | |",
            "|---|---|---|---|",
        ]
        if model is OrchestratorConfig:
            parts.append(STAGES)
        parts.append("\n".join([*lines, *rows(model, without)]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
