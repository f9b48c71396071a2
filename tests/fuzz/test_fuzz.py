"""The short version of `make fuzz`: every target, every seed as it is, and a few thousand mutations of each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_inputs import Mutator, bomb, images
from fuzz_targets import Finding, fuzz_decoding, fuzz_functions, headers
from sluiceway_runtime.errors import ImageTooLarge
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import check_image

# Fixed, so that a failure here repeats; `make fuzz` takes another each time.
SEED = 9


def test_functions() -> None:
    assert fuzz_functions(SEED, 10_000) >= 10_000


async def test_decoding_in_real_workers() -> None:
    ends = await fuzz_decoding(SEED, 3_000)
    assert ends.total() == 3_000
    # A mutator that only makes rubbish would test the header alone.
    assert ends["Outcome"] > 300, ends
    assert ends["InvalidImage"] > 300, ends


def test_what_is_fuzzed_would_be_found() -> None:
    def crash(data: bytes) -> None:
        raise IndexError(len(data))

    from fuzz_targets import TARGETS

    saved = TARGETS["headers"]
    TARGETS["headers"] = (crash, saved[1], saved[2])
    try:
        with pytest.raises(Finding, match="headers: IndexError"):
            fuzz_functions(SEED, 100)
    finally:
        TARGETS["headers"] = saved


def test_the_same_seed_gives_the_same_inputs() -> None:
    seeds = images()
    assert Mutator(1).pick(seeds) == Mutator(1).pick(seeds)


@pytest.mark.parametrize("size", [(50_000, 50_000), (2**31 - 1, 1), (100_001, 1_000)])
def test_bombs_are_refused_by_their_header(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    from sluiceway_runtime.images import decode as module

    monkeypatch.setattr(module.cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge):
        decode_image(bomb(*size), module.ImageLimits())


def test_every_seed_is_judged() -> None:
    for data in images():
        headers(data)
    assert sum(_sound(data) for data in images()) >= 40


def _sound(data: bytes) -> bool:
    from sluiceway_runtime.errors import SluicewayError
    from sluiceway_runtime.images.limits import ImageLimits

    try:
        check_image(data, ImageLimits())
    except SluicewayError:
        return False
    return True


FINDINGS = sorted((Path(__file__).parent / "findings").iterdir())
JUDGE = """
import sys
from pathlib import Path
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.errors import SluicewayError
try:
    print(decode_image(Path(sys.argv[1]).read_bytes(), ImageLimits()).shape)
except SluicewayError as error:
    print(error.reason)
"""


@pytest.mark.parametrize("file", FINDINGS, ids=lambda file: file.stem)
def test_what_once_ended_a_process_does_not_any_more(file: Path) -> None:
    done = subprocess.run([sys.executable, "-c", JUDGE, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout
