"""DB detectors (differentiable binarisation): maps that say of each pixel how likely it is text, read as lines."""

from sluiceway_detection.db.closer import Closer, Probe, closer_look
from sluiceway_detection.db.long_lines import divide_long_lines
from sluiceway_detection.db.regions import MapReading, select_map
from sluiceway_detection.db.tiles import Sheet, content_at

__all__ = ["Closer", "Probe", "MapReading", "Sheet", "closer_look", "content_at", "divide_long_lines", "select_map"]
