"""A real Prometheus beside the servers of a test, with the alerts of this release in which a minute is a second."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from ports import free_ports
from waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy" / "alerts" / "sluiceway.yml"
DASHBOARD = ROOT / "deploy" / "dashboards" / "sluiceway.json"
_SECONDS = {"m": 1, "h": 60}


def program(name: str) -> str:
    """Where it is installed."""
    path = shutil.which(name)
    assert path, f"no {name}: see `make test-observability`"
    return path


def hurried(rules: str) -> str:
    """The rules with a second in the place of each minute, so that a test sees what takes an operator hours."""

    def second(found: re.Match[str]) -> str:
        return f"{found[1]}{int(found[2]) * _SECONDS[found[3]]}s"

    return re.sub(r"(\[|for: |offset )(\d+)([mh])\b", second, rules)


def panels() -> dict[str, list[str]]:
    """Queries of each panel of the dashboard, by its title."""
    shown = json.loads(DASHBOARD.read_text())["panels"]
    return {
        panel["title"]: [target["expr"] for target in panel["targets"]] for panel in shown if panel["type"] != "row"
    }


class Prometheus:
    """Scrapes each second, from entering to leaving.

    Args:
        folder: for its data, and for its log.
        targets: by job, addresses of operations ports.
    """

    def __init__(self, folder: Path, targets: Mapping[str, Sequence[str]]) -> None:
        [port] = free_ports(1)
        self._address = f"127.0.0.1:{port}"
        (folder / "alerts.yml").write_text(hurried(ALERTS.read_text()))
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(folder / "alerts.yml")],
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": list(addresses)}]}
                for name, addresses in targets.items()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = folder / "prometheus.log"
        self._command = [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self._address}",
        ]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(self._is_ready, what="Prometheus is ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, path: str) -> Any:
        """What its API answers."""
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What a query of a panel, or any other, gives now: labels and value of each line."""
        text = urllib.parse.quote(expression.replace("$__rate_interval", "5s"))
        result = self.ask(f"query?query={text}")["result"]
        return [(line["metric"], float(line["value"][1])) for line in result]

    def panel(self, title: str, **labels: str) -> float:
        """The largest value that a panel shows of lines with these labels; 0 if it shows none."""
        lines = [line for expression in panels()[title] for line in self.query(expression)]
        return max((value for metric, value in lines if labels.items() <= metric.items()), default=0.0)

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}

    def faulty_rules(self) -> dict[str, str]:
        """Rules that could not be evaluated, and why; and all that have not been yet."""
        rules = [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
        return {rule["name"]: rule.get("lastError", rule["health"]) for rule in rules if rule["health"] != "ok"}
