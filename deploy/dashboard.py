"""Make the dashboard of its panels, and put it and the alerts into the chart: `python deploy/dashboard.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parent
PANELS = DEPLOY / "dashboards" / "panels.yml"
TARGET = DEPLOY / "dashboards" / "sluiceway.json"
ALERTS = DEPLOY / "alerts" / "sluiceway.yml"
# Helm reads files of the chart's own folder alone.
CHART_FILES = DEPLOY / "helm" / "sluiceway" / "files"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, COLUMNS = 8, 8, 3


def full(expression: str) -> str:
    """A query as Grafana reads it."""
    return expression.replace("$rate", "[$__rate_interval]")


def panel(what: Mapping[str, Any], number: int, x: int, y: int) -> dict[str, Any]:
    """As Grafana has it."""
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 20 if "stacked" in what else 0}
    if "stacked" in what:
        custom["stacking"] = {"mode": "normal"}
    return {
        "id": number,
        "type": "timeseries",
        "title": what["title"],
        "description": what["text"],
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": what["unit"], "min": 0, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"datasource": SOURCE, "expr": full(expression), "legendFormat": legend, "refId": chr(ord("A") + place)}
            for place, (legend, expression) in enumerate(what["queries"].items())
        ],
    }


def dashboard() -> dict[str, Any]:
    """The whole of it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for part in yaml.safe_load(PANELS.read_text(encoding="utf-8")):
        title, row = part["row"], part["panels"]
        grid = {"x": 0, "y": y, "w": WIDTH * COLUMNS, "h": 1}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": grid, "panels": []}
        )
        y += 1
        for place, what in enumerate(row):
            column, line = place % COLUMNS, place // COLUMNS
            panels.append(panel(what, len(panels) + 1, column * WIDTH, y + line * HEIGHT))
        y += -(-len(row) // COLUMNS) * HEIGHT
    choice = {"text": "Prometheus", "value": "prometheus"}
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": choice,
        "hide": 0,
    }
    return {
        "uid": "sluiceway",
        "title": "Sluiceway",
        "tags": ["sluiceway"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [source]},
        "annotations": {"list": []},
        "panels": panels,
    }


def files() -> dict[Path, str]:
    """Everything that this makes, by where it belongs."""
    made = json.dumps(dashboard(), indent=2) + "\n"
    return {
        TARGET: made,
        CHART_FILES / "dashboard.json": made,
        CHART_FILES / "alerts.yml": ALERTS.read_text(encoding="utf-8"),
    }


if __name__ == "__main__":
    for path, content in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
