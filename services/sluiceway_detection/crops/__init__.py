"""Regions cut out of an image: at the size that the next stage asks for, and aligned by keypoints where it asks."""

from sluiceway_detection.crops.cutting import (
    MAX_CROPS,
    Crop,
    CropPlan,
    PixelFormat,
    ResizeRule,
    Transform,
    channels_of,
    cut_crops,
)

__all__ = ["MAX_CROPS", "Crop", "CropPlan", "PixelFormat", "ResizeRule", "Transform", "channels_of", "cut_crops"]
