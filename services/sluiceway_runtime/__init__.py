"""What every Sluiceway server is made of: worker pool, gRPC server, health, operations port, configuration, errors."""

import sys

# OpenVINO tells its maker of each import, unless the package that does it cannot be imported. Every process of ours is
# here before it imports OpenVINO, as are user's own models in it; nobody was asked, so nothing is told.
if "openvino_telemetry" not in sys.modules:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
