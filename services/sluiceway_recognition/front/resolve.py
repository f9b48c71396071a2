"""From the configuration to plans: weights are looked up and checked once, in the front, before any worker starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.weights import Weights

from sluiceway_recognition.config import DEFAULT_MODEL, ModelConfig
from sluiceway_recognition.plan import ModelPlan, Normalisation
from sluiceway_recognition.text.long_lines import LONGEST
from sluiceway_recognition.types import KIND, MAX_WIDTH_PX, CropSpec, Head, ResizeRule

__all__ = ["plan_models"]

# Of the classifier among the files of an entry of the registry.
UPRIGHT_ROLE = "upright"


def plan_models(
    models: tuple[ModelConfig, ...], find: Callable[[str], Weights], section: str = KIND
) -> tuple[ModelPlan, ...]:
    """Look up what the models need.

    Args:
        models: of the configuration.
        find: gives the weights of a name or path, or raises StartupError.
        section: of the configuration that they stand in.

    Raises:
        StartupError: with every model that cannot be served, one a line.
    """
    plans, faults = [], []
    for model in models:
        try:
            plans.append(replace(_plan(model, find), section=section))
        except StartupError as error:
            faults.append(f"{section}.models.{model.name}: {error}")
    if faults:
        raise StartupError("\n".join(faults))
    return tuple(plans)


def _plan(model: ModelConfig, find: Callable[[str], Weights]) -> ModelPlan:
    spec = CropSpec(
        model.height, model.max_width, model.format, model.rule, model.classes, model.turns_from, model.points
    )
    normalisation = Normalisation(_each(model.mean), _each(model.std), black=model.padding == "black")
    if model.recognizer is not None:
        return ModelPlan(
            model.name,
            model.kind,
            spec,
            (),
            normalisation,
            version=model.version,
            labels=model.labels,
            user_class=model.recognizer,
            options=model.options,
        )
    if model.kind is Head.TEXT and model.rule is ResizeRule.FIT_HEIGHT:
        # Longer lines are read in pieces, which need all of their columns.
        spec = replace(spec, max_width=min(LONGEST * model.max_width, MAX_WIDTH_PX))
    weights = find(model.weights or model.name)
    if model.characters is not None and not model.characters.is_file():
        raise StartupError(f"the character list {model.characters} does not exist")
    return ModelPlan(
        model.name,
        model.kind,
        spec,
        model.widths,
        normalisation,
        weights=weights.path,
        version=model.version or weights.version,
        weights_sha256=weights.sha256,
        characters=model.characters or weights.files.get("config"),
        alphabet=model.alphabet,
        blank=model.blank,
        ends=model.decoder == "steps",
        labels=model.labels,
        backend=model.backend,
        precision=model.precision,
        output=model.output,
        dynamic_shapes=model.dynamic_shapes,
        upright=_upright(model, weights, find),
        # What the registry has, it says something of.
        own=not weights.metadata,
    )


def _upright(model: ModelConfig, weights: Weights, find: Callable[[str], Weights]) -> Path | None:
    if model.upright == "none" or model.kind is not Head.TEXT:
        return None
    own = weights.files.get(UPRIGHT_ROLE)
    # Weights of users come without it: it is that of the default model, which knows nothing of characters.
    return own if own is not None or model.upright is None else find(DEFAULT_MODEL).files[UPRIGHT_ROLE]


def _each(value: float | tuple[float, float, float]) -> tuple[float, float, float]:
    return value if isinstance(value, tuple) else (value, value, value)
