"""DB detectors (differentiable binarisation): maps that say of each pixel how likely it is text, read as lines."""

from sluiceway_detection.db.long_lines import divide_long_lines
from sluiceway_detection.db.maps import joined_map
from sluiceway_detection.db.probe import Probe
from sluiceway_detection.db.regions import Map, MapReading, select_map

__all__ = ["Map", "MapReading", "Probe", "divide_long_lines", "joined_map", "select_map"]
