"""Training recipes; nothing here is imported by the services."""

import sluiceway_runtime  # noqa: F401 - keeps OpenVINO from telling its maker of each import
