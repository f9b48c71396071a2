"""A picture of the dashboard: its panels, drawn from what a real Prometheus has."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, PercentFormatter
from prometheus import DASHBOARD, Prometheus

__all__ = ["PANELS", "draw_dashboard"]

# Those that show work under a load that grows.
PANELS = (
    "Images",
    "Time of an image",
    "Busy share of workers",
    "Mean time of a step, by phase",
    "Oldest wait",
    "Items in a batch",
    "CPU of servers",
    "Bytes held",
)
COLUMNS = 2
UNITS = {"s": "s", "reqps": "/s", "bytes": "B"}
STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def draw_dashboard(prometheus: Prometheus, begun_s: float, file: Path) -> None:
    """Draw some panels, from a moment on until now.

    Args:
        prometheus: runs, and has scraped all that time.
        begun_s: on the wall clock.
        file: to draw to.
    """
    panels = {panel["title"]: panel for panel in json.loads(DASHBOARD.read_text())["panels"]}
    ended_s = time.time()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 9), layout="constrained")
        axes = figure.subplots(len(PANELS) // COLUMNS, COLUMNS).flat
        for title, place in zip(PANELS, axes, strict=True):
            _draw_panel(prometheus, panels[title], place, begun_s, ended_s)
        figure.savefig(file, dpi=100)
    print(f"{file}: {file.stat().st_size} bytes")


def _draw_panel(prometheus: Prometheus, panel: dict[str, Any], axes: Axes, begun_s: float, ended_s: float) -> None:
    drawn = 0
    for target in panel["targets"]:
        expression = urllib.parse.quote(target["expr"].replace("$__rate_interval", "5s"))
        path = f"query_range?query={expression}&start={begun_s}&end={ended_s}&step=1"
        for line in prometheus.ask(path)["result"]:
            points = [(float(at) - begun_s, float(value)) for at, value in line["values"]]
            axes.plot(*zip(*points, strict=True), linewidth=1.2, label=_label(target["legendFormat"], line["metric"]))
            drawn += 1
    assert drawn, f"nothing to draw in {panel['title']}"
    axes.set_title(panel["title"])
    # Room for the legend above the lines.
    axes.set_ylim(0, 1.5 * axes.get_ylim()[1])
    axes.set_xlim(0, ended_s - begun_s)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    if unit == "percentunit":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    elif unit in UNITS:
        axes.yaxis.set_major_formatter(EngFormatter(UNITS[unit]))
    axes.legend(loc="upper left", fontsize=6, ncols=2, framealpha=0.6)


def _label(wanted: str, metric: dict[str, str]) -> str:
    # A port says nothing to whoever looks at the picture.
    said = re.sub(r"\{\{(\w+)\}\}", lambda found: metric.get(found[1], ""), wanted)
    return re.sub(r" *127\.0\.0\.1:\d+", "", said)
