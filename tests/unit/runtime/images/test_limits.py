"""What judges files by their headers needs nothing that decodes them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sluiceway_runtime.errors import ImageTooLarge
from sluiceway_runtime.images.limits import ImageLimits, check_image, check_size

LIMITS = ImageLimits(max_bytes=10, max_pixels=100, keys=("most_bytes", "most_pixels"))


def test_errors_name_the_keys_of_the_stage() -> None:
    check_size(bytes(10), LIMITS)
    for check in (check_size, check_image):
        with pytest.raises(ImageTooLarge) as caught:
            check(bytes(11), LIMITS)
        assert caught.value.metadata == {"limit": "most_bytes", "max": "10"}


@pytest.mark.parametrize("module", ["sluiceway_runtime.images.limits", "sluiceway_recognition.config"])
def test_nothing_that_decodes_is_imported(module: str) -> None:
    # The orchestrator runs where none of these is installed, and configurations are read there.
    code = f"import sys, {module}; print({{'cv2', 'numpy', 'PIL'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
