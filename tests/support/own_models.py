"""Networks as users would bring them: exported by torch, small enough to be read at a glance."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["MeanColour", "Stripes", "export", "export_mean_colour"]


class MeanColour(nn.Module):
    """The mean of each channel, [N, 3]; with an activation on top."""

    def __init__(self, activation: str = "none") -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.activation = activation

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean((2, 3)) * self.scale
        if self.activation == "softmax":
            return means.softmax(-1)
        if self.activation == "log":
            return torch.log_softmax(means, dim=-1).reshape(-1, 3)
        return means.sigmoid() if self.activation == "sigmoid" else means


class Stripes(nn.Module):
    """A reader of text: each 8 columns say one of four classes by how bright they are, [N, W / 8, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0]))

    def forward(self, images: Tensor) -> Tensor:
        steps = nn.functional.avg_pool2d(images, (images.shape[2], 8)).mean(1).squeeze(1)
        return -40 * (steps[:, :, None] - self.levels).square()


def export(path: Path, net: nn.Module, sizes: tuple[int, ...], dynamic: dict[int, object] | None = None) -> Path:
    """Save a program for inputs of a size; `dynamic` names the dimensions that may differ."""
    shapes = None if dynamic is None else ({**dynamic},)
    program = torch.export.export(net.eval(), (torch.zeros(sizes),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def export_mean_colour(path: Path, activation: str = "none") -> Path:
    """Any batch, crops of 16 x 24."""
    return export(path, MeanColour(activation), (2, 3, 16, 24), {0: torch.export.Dim("batch", min=1, max=512)})
