"""The release that runs here."""

from importlib import metadata

import pytest
from sluiceway_runtime.release import release


def test_it_is_that_of_the_package_and_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert release() == metadata.version("sluiceway")
    monkeypatch.setattr("sluiceway_runtime.release.version", None)
    assert release() == metadata.version("sluiceway")
