"""Caps on the threads of compute libraries: set in a worker's environment, then again on what it has loaded.

Four processes with library defaults on two cores are forty times slower than one, as OpenMP threads spin at barriers
while a peer holds their core. So every library is told its number before it is imported, and told to wait passively.
"""

from __future__ import annotations

import sys
from pathlib import Path

from threadpoolctl import ThreadpoolController

__all__ = ["apply_thread_caps", "os_threads", "thread_environment"]

COUNTED = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
    "TBB_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)
PASSIVE = {
    "OMP_WAIT_POLICY": "PASSIVE",  # the standard's word; the rest are the vendors'
    "OMP_DYNAMIC": "FALSE",
    "GOMP_SPINCOUNT": "0",
    "KMP_BLOCKTIME": "0",
    "MKL_DYNAMIC": "FALSE",
}
TASKS = Path("/proc/self/task")


def thread_environment(threads: int) -> dict[str, str]:
    """What a worker's environment must hold before any library is imported.

    Args:
        threads: compute threads it may use, at least 1.
    """
    if threads < 1:
        raise ValueError("a worker needs at least one thread")
    return dict.fromkeys(COUNTED, str(threads)) | PASSIVE


def apply_thread_caps(threads: int) -> dict[str, int]:
    """Cap the libraries that are loaded in this process, and read the caps back.

    Some libraries override the environment when they load or predict for the first time, so this runs after that. It
    imports nothing.

    Returns:
        Library -> threads that it now says it uses; a library that uses fewer is left alone.
    """
    caps: dict[str, int] = {}
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(threads)
        caps["opencv"] = int(cv2.getNumThreads())
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
        caps["torch"] = int(torch.get_num_threads())
    # OpenMP runtimes, OpenBLAS, MKL and BLIS, each as often as it is there.
    for library in ThreadpoolController().lib_controllers:
        # Never raised: OpenBLAS then starts threads, which spin for a while and are taken for work.
        if library.get_num_threads() > threads:
            library.set_num_threads(threads)
        caps[f"{library.user_api}:{Path(library.filepath).name}"] = int(library.get_num_threads())
    return caps


def os_threads() -> int:
    """Threads that this process has, busy or not."""
    return sum(1 for _ in TASKS.iterdir())
