"""The whole networks, by the names of the registry."""

# torch is an extra: without it mypy knows no base class. mypy reads the next line.
# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sluiceway_runtime.errors import StartupError
from torch import Tensor, nn

from sluiceway_recognition.nets.backbones import BlockPlan, BranchStem, PPLCNetV3, PPLCNetV4, SimpleStem
from sluiceway_recognition.nets.necks import ConvNeck, LightSVTRNeck, SVTRNeck

__all__ = ["NETS", "CTCHead", "TextNet", "UnknownNetwork"]

_DOWN = (2, 1)  # rows halve, columns stay: steps are not lost
_ACROSS = (1, 2)


class UnknownNetwork(StartupError):
    """A readable file of a network that is not written out here."""


class CTCHead(nn.Module):
    """From steps to classes, perhaps through a narrow middle."""

    def __init__(self, channels: int, classes: int, middle: int | None = None) -> None:
        super().__init__()
        self.narrow = nn.Identity() if middle is None else nn.Linear(channels, middle)
        self.classify = nn.Linear(middle or channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, D] to logits [N, T, classes]."""
        logits: Tensor = self.classify(self.narrow(x))
        return logits


class TextNet(nn.Module):
    """Backbone, neck and head."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: CTCHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Normalised crops [N, 3, 48, W] to logits [N, W / 8, classes]; W is a multiple of 8."""
        logits: Tensor = self.head(self.neck(self.backbone(x)))
        return logits

    @property
    def classes(self) -> int:
        """Number of classes, blank and space included."""
        return int(self.head.classify.out_features)


def _v6_tiny(classes: int) -> TextNet:
    blocks = (
        BlockPlan(48, 48, excite=True),
        BlockPlan(48, 48),
        BlockPlan(48, 96, stride=_DOWN),
        BlockPlan(96, 96, excite=True),
        BlockPlan(96, 96),
        BlockPlan(96, 160, stride=_DOWN),
        BlockPlan(160, 160, excite=True),
        BlockPlan(160, 160),
        BlockPlan(160, 160),
    )
    return TextNet(PPLCNetV4(SimpleStem(24, 48), blocks), ConvNeck(160), CTCHead(160, classes, middle=80))


def _v6_small(classes: int) -> TextNet:
    blocks = (
        BlockPlan(96, 96, excite=True),
        BlockPlan(96, 96),
        BlockPlan(96, 96),
        BlockPlan(96, 192, stride=_DOWN),
        BlockPlan(192, 192, excite=True),
        BlockPlan(192, 192),
        BlockPlan(192, 192, excite=True),
        BlockPlan(192, 192),
        BlockPlan(192, 192, excite=True),
        BlockPlan(192, 192),
        BlockPlan(192, 384, stride=_DOWN),
        BlockPlan(384, 384, excite=True),
        BlockPlan(384, 384),
    )
    return TextNet(PPLCNetV4(BranchStem(48, 96), blocks), LightSVTRNeck(384, 120), CTCHead(120, classes))


def _v5_mobile(classes: int) -> TextNet:
    blocks = (
        BlockPlan(16, 32),
        BlockPlan(32, 64),
        BlockPlan(64, 64),
        BlockPlan(64, 128, stride=_DOWN),
        BlockPlan(128, 128),
        BlockPlan(128, 240, stride=_ACROSS),
        *(BlockPlan(240, 240, 5) for _ in range(4)),
        BlockPlan(240, 480, 5, stride=_DOWN, excite=True),
        BlockPlan(480, 480, 5, excite=True),
        BlockPlan(480, 480, 5, stride=_DOWN),
        BlockPlan(480, 480, 5),
    )
    return TextNet(PPLCNetV3(16, blocks), SVTRNeck(480, 120), CTCHead(120, classes))


NETS: Final[Mapping[str, Callable[[int], TextNet]]] = {
    "ppocrv6-tiny": _v6_tiny,
    "ppocrv5-mobile": _v5_mobile,
    "ppocrv6-small": _v6_small,
}
