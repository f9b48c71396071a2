"""`python -m stand_in_cgroup detection`: a server whose CPU quota is a file of the test's own.

Containers and machines of tests may not make control groups, and those that may have no quota that a test could use up
at will.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from sluiceway_runtime import control_groups

if __name__ == "__main__":
    # Before whoever looks there is imported.
    folder = Path(os.environ["STAND_IN_CGROUP"])
    control_groups.PROC, control_groups.SYS = folder / "proc", folder / "sys"
    name = sys.argv.pop(1)
    runpy.run_module(f"sluiceway_{name}", run_name="__main__", alter_sys=True)
