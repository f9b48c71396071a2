"""What holds for every test."""

from __future__ import annotations

import sluiceway_runtime  # noqa: F401 - keeps OpenVINO from telling its maker of each import
from hypothesis import settings

# No time limit for an example: on a busy machine any of them may take seconds, which says nothing about the code.
settings.register_profile("sluiceway", deadline=None, print_blob=True)
settings.load_profile("sluiceway")
