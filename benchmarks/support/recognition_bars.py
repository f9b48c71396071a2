"""What `make bench-recognition` has to show, and how it is printed. Pure."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Asked", "Bar", "Figures", "Verdict", "bars", "drift", "judge", "table"]

# Figures by name; the parts of a name are joined by dots.
Figures = Mapping[str, float]
_COMPARE: Final = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Bar:
    """A ratio or figure and what it must reach.

    Attributes:
        needs: figures that it is made of.
        kind: `h100` applies to that device (or better), `gpu` to any, `cpu` to a machine without.
    """

    name: str
    compare: str
    limit: float
    needs: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Asked:
    """What a run was to measure; see the options of the same names."""

    parts: Sequence[str]
    models: Sequence[str]
    widths: Sequence[int]
    batches: Sequence[int]
    fronts: Sequence[int]

    def covers(self, figure: str) -> bool:
        """Whether a figure was to be measured, by its name."""
        first, *rest = figure.split(".")
        parts, named = _NAMED.get(first, ({first}, ()))
        wanted: dict[str, Sequence[object]] = {
            "model": self.models, "width": self.widths, "batch": self.batches, "front": self.fronts,
            "server": ["server"],
        }  # fmt: skip
        return parts <= set(self.parts) and all(
            part in map(str, wanted[kind]) for kind, part in zip(named, rest, strict=False)
        )


# Of a figure the part that measures it, and what its name says after that.
_NAMED: Final = {
    "bare": ({"bare"}, ("model", "width", "batch")),
    "served": ({"served"}, ("model", "width", "front")),
    "wire": ({"wire"}, ("width", "front")),
    "latency": ({"latency"}, ("server", "model")),
    "mixed": ({"mixed"}, ("model",)),
    "served_to_bare": ({"bare", "served"}, ("model", "width")),
}


@dataclass(frozen=True)
class Verdict:
    """A bar and its figure. `passed` is None where it does not apply, and `note` says why.

    A bar that applies and was not measured, though all of it was asked for, is not passed.
    """

    bar: Bar
    value: float | None
    passed: bool | None
    note: str = ""


def bars(widths: Sequence[int], fronts: Sequence[int], models: Sequence[str]) -> Iterator[Bar]:
    """Every bar, for these widths of crops, numbers of fronts and models."""
    yield Bar("bare.ppocrv5-mobile.320.128.per_s", ">=", 20_000, ("bare.ppocrv5-mobile.320.128.per_s",), "h100")
    yield Bar("bare.ppocrv5-mobile.320.1.ms", "<=", 0.42, ("bare.ppocrv5-mobile.320.1.ms",), "h100")
    yield Bar("bare.ppocrv6-tiny.320.128.per_s", ">=", 100_000, ("bare.ppocrv6-tiny.320.128.per_s",), "h100")
    yield Bar("bare.ppocrv6-tiny.320.1.ms", "<=", 0.29, ("bare.ppocrv6-tiny.320.1.ms",), "h100")
    for model in models:
        for width in widths:
            for count in fronts:
                served = f"served.{model}.{width}.{count}.per_s"
                floor = (f"bare.{model}.{width}.128.per_s", f"wire.{width}.{count}.per_s")
                yield Bar(f"served_to_floor.{model}.{width}.{count}", ">=", 0.8, (served, *floor), "gpu")
    one = "served.ppocrv6-tiny.160.1.per_s"
    yield Bar(one, ">=", 24_000, (one,), "h100")
    # As many fronts as it takes, until the GPU is what is full.
    most = max(fronts)
    if most > 1:
        more = f"served.ppocrv6-tiny.160.{most}.per_s"
        yield Bar(f"fronts_{most}_to_1.ppocrv6-tiny.160", ">=", 1.8, (more, one), "gpu")
    share = f"served.ppocrv5-mobile.{max(widths)}.{most}.gpu_share"
    yield Bar(share, ">=", 0.95, (share,), "gpu")
    for model in models:
        yield Bar(f"latency.server.{model}.ms", "<=", 4.0, (f"latency.server.{model}.ms",), "gpu")
        needs = (f"mixed.{model}.per_s", f"mixed.{model}.uniform_per_s")
        yield Bar(f"mixed_to_uniform.{model}", ">=", 0.7, needs, "gpu")
    yield Bar("served_to_bare.ppocrv6-tiny.320", ">=", 0.9, ("served_to_bare.ppocrv6-tiny.320",), "cpu")
    yield Bar("soak.device_drift", "<=", 0.02, ("soak.device_drift",), "gpu")
    yield Bar("soak.host_drift", "<=", 0.02, ("soak.host_drift",), "any")


def judge(bar: Bar, figures: Figures, *, device: str, asked: Asked) -> Verdict:
    """Hold figures against a bar.

    Args:
        bar: what to judge.
        figures: what was measured.
        device: name of the GPU; empty without one.
        asked: what was to be measured.
    """
    if bar.kind == "cpu" and device:
        return Verdict(bar, None, None, "for a machine without a GPU")
    if bar.kind in ("gpu", "h100") and not device:
        return Verdict(bar, None, None, "for a GPU")
    other = bar.kind == "h100" and not any(name in device for name in ("H100", "H200"))
    if any(name not in figures for name in bar.needs):
        wanted = not other and all(map(asked.covers, bar.needs))
        return Verdict(bar, None, False if wanted else None, "not measured")
    first, *others = (figures[name] for name in bar.needs)
    # What is served is held against the lesser of what the model computes and what the wire carries.
    value = first / min(others) if others else first
    if other:
        return Verdict(bar, value, None, "for an H100")
    return Verdict(bar, value, bool(_COMPARE[bar.compare](value, bar.limit)))


def drift(samples: Sequence[float]) -> float:
    """How far the median of any quarter of the time lies from that of the first quarter, as a share of that."""
    quarter = max(1, len(samples) // 4)
    medians = [statistics.median(samples[start : start + quarter]) for start in range(0, len(samples), quarter)]
    return max(abs(median - medians[0]) for median in medians) / medians[0]


def table(figures: Figures, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Lines to print: every figure, then every bar."""
    for name, figure in figures.items():
        yield f"{name:<52}{_number(figure):>12}"
    yield ""
    yield f"{'bar':<52}{'measured':>12}  {'must be':<12}"
    for verdict in verdicts:
        bar = verdict.bar
        value = "-" if verdict.value is None else _number(verdict.value)
        said = {True: "passed", False: "FAILED", None: ""}[verdict.passed]
        note = f"({verdict.note})" if verdict.note else ""
        yield f"{bar.name:<52}{value:>12}  {bar.compare} {_number(bar.limit):<9}  {f'{said} {note}'.strip()}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"
