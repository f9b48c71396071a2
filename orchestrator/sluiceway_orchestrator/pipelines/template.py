"""Parameters of a call, written as text with placeholders: what may stand in them, and filling them in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["REGION_NAMES", "SOURCE_NAMES", "fill", "placeholders"]

_PLACEHOLDER = re.compile(r"\{([a-z_]+(?:\.[A-Za-z0-9_.-]+)?)\}")
# What is known of a source, in every call; `param.NAME` is what the source itself brought.
SOURCE_NAMES = frozenset({"source_id", "job_id", "request_id", "values"})
# What is known besides where a call is about a region.
REGION_NAMES = frozenset({"id", "class", "confidence", "text", "label"})


def placeholders(template: str) -> Iterable[str]:
    """Names between braces; braces around anything else are text."""
    return (match[1] for match in _PLACEHOLDER.finditer(template))


def fill(template: str, facts: Mapping[str, Any], params: Mapping[str, str]) -> str:
    """Put facts into a template.

    Args:
        template: as configured, its placeholders known to be right.
        facts: by name; what is no text is written as JSON.
        params: of the source; one that it does not give is empty.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        found = params.get(name[6:], "") if name.startswith("param.") else facts.get(name, "")
        return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, separators=(",", ":"))

    return _PLACEHOLDER.sub(value, template)
