"""The chart in a real cluster: installed, used, and broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kubernetes_release import Ledger, Release, in_client, kubectl

Report = Callable[[str], None]
Until = Callable[..., float]

POST = """
import json, sys, urllib.error, urllib.request
url, host = sys.argv[1:]
body = open("/files/photo.jpg", "rb").read()
headers = {"Content-Type": "image/jpeg"} | ({"Host": host} if host else {})
try:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        print(json.dumps([answer.status, [json.loads(line) for line in answer]]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""


def post(url: str, host: str = "") -> tuple[int, Any]:
    status, answer = in_client(POST, url, host)
    return int(status), answer


def test_a_photo_is_read(release: Release, report: Report) -> None:
    command = ["sluiceway", "run", "--json", "--address", release.address, "/files/photo.jpg"]
    answer = json.loads(kubectl("exec", "client", "--", *command))
    assert answer["status"] == "ok"
    assert answer["regions"]
    report(f"kubernetes: first photo, {len(answer['regions'])} regions")


def test_a_photo_is_read_through_the_http_port(release: Release) -> None:
    url = f"http://{release.host('orchestrator')}:8080/v1/process"
    status, events = post(url)
    assert status == 200
    assert events[-1]["job_done"]["succeeded"] == 1
    assert any("values" in event for event in events)
    # A name that nobody gave it: a web page may have pointed it here.
    assert post(url, host="elsewhere.example.org")[0] == 421


def test_the_release_tests_itself(release: Release) -> None:
    assert "Succeeded" in release.helm("test", "--timeout=3m")


def delete_one(release: Release, component: str, until: Until) -> None:
    before = release.ready(component)
    kubectl("delete", "pod", before[0], "--wait=false")
    until(f"{component} without {before[0]}", lambda: before[0] not in release.ready(component), 60)
    until(f"{component} complete again", lambda: len(release.ready(component)) >= len(before), 180)


def more_results(ledger: Ledger, until: Until) -> None:
    done = ledger.done
    until("further results", lambda: ledger.done >= done + 8, 120)


def test_deleted_pods_fail_nothing(release: Release, report: Report, until: Until) -> None:
    with release.load(clients=4) as ledger:
        until("first results", lambda: ledger.done >= 4, 120)
        for component in ("detection", "recognition", "orchestrator"):
            delete_one(release, component, until)
            more_results(ledger, until)
    report(f"kubernetes: {ledger.done} requests while pods were deleted, {len(ledger.failures)} failed")
    assert ledger.failures == []
