"""URLs as sources: told from paths however their scheme is written, and named without their content."""

from __future__ import annotations

import pytest

from sluiceway.cli.inputs import find_inputs
from sluiceway.client.sources import describe_source, load_source, path_of

DATA = "data:image/png;base64," + "iVBORw0KGgo" * 1000


@pytest.mark.parametrize("url", ["http://example.org/a.png", "HTTPS://example.org/a.png", "Data:,x", DATA])
def test_urls_are_sent_as_they_were_written(url: str) -> None:
    assert load_source(url).url == url
    assert path_of(url) is None
    [found] = find_inputs([url])
    assert found.source == url


@pytest.mark.parametrize("path", ["httpd/a.png", "data/a.png", "https.png"])
def test_paths_that_begin_alike_are_paths(path: str) -> None:
    found = path_of(path)
    assert found is not None
    assert str(found) == path


def test_a_data_url_is_named_by_its_kind_and_length() -> None:
    assert describe_source(DATA) == f"data:image/png;base64,… ({len(DATA)} characters)"
    assert find_inputs([DATA])[0].name == describe_source(DATA)
