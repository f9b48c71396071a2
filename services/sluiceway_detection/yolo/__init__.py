"""YOLO detectors, and DETR models beside them: what their outputs hold, read as regions."""
