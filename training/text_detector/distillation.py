"""Student, teacher, and the loss that makes the one repeat the other at every anchor.

Both are YOLO26 with the same three strides, so anchor i of the student answers anchor i of the teacher: no assignment
of boxes to anchors is needed, and any picture can be trained on, labelled or not.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from torch import nn
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

NAMES = {0: "textline"}


def build_student() -> DetectionModel:
    """YOLO26n with one class and the classic one-to-many head."""
    layout = yaml_model_load("yolo26n.yaml")
    layout["end2end"] = False
    model = DetectionModel(layout, nc=len(NAMES), verbose=False)
    model.names = dict(NAMES)
    return model


def load_teacher(path: Path) -> DetectionModel:
    """YOLO26s text with raw one-to-many outputs; frozen.

    Args:
        path: an ultralytics checkpoint. It is unpickled, so it must be one you trust.
    """
    model = torch.load(path, map_location="cpu", weights_only=False)["model"].float().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    head = model.model[-1]
    head.one2one_cv2 = head.one2one_cv3 = None  # the served text-small uses the one-to-many head
    model.fuse(verbose=False)
    head.training = True  # raw outputs; its layers stay in inference mode
    return model


class Hints(nn.Module):
    """Linear maps from the student's features to the teacher's: they speed up the first half of training."""

    def __init__(self, student_channels: list[int], teacher_channels: list[int]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(student_channels, teacher_channels, strict=True))

    def forward(self, student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
        """Mean squared error against the teacher's features with unit variance in each channel."""
        loss = student[0].new_zeros((), dtype=torch.float32)
        for to_teacher, ours, theirs in zip(self.maps, student, teacher, strict=True):
            wanted = theirs.float()
            mean, spread = wanted.mean((0, 2, 3), keepdim=True), wanted.std((0, 2, 3), keepdim=True)
            loss = loss + F.mse_loss(to_teacher(ours).float(), (wanted - mean) / (spread + 1e-3))
        return loss / len(self.maps)


def agreement_loss(student: dict[str, torch.Tensor], teacher: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """How far the student's raw outputs are from the teacher's.

    Args:
        student: "boxes" [B, 4, A] (distances left, top, right, bottom in strides) and "scores" [B, 1, A] (logits).
        teacher: the same with "scores" [B, 2, A], of which class 0 is text.
    Returns:
        Scalars "score", "overlap" and "distance", each per unit of the teacher's summed probability.
    """
    logits, wanted = student["scores"].float(), teacher["scores"][:, :1].float().sigmoid()
    mass = wanted.sum().clamp(min=1.0)
    # Cross entropy less its floor (the teacher's own entropy), so that perfect agreement reads zero.
    score = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    floor = torch.special.entr(wanted) + torch.special.entr(1 - wanted)
    ours, theirs = student["boxes"].float(), teacher["boxes"].float()
    weight = wanted[:, 0] * (wanted[:, 0] > 0.03)
    # Opposite sides are added before clamping: clamping each side alone lets a box of negative width overlap.
    near = torch.minimum(ours, theirs)
    inner = (near[:, 0] + near[:, 2]).clamp(min=0) * (near[:, 1] + near[:, 3]).clamp(min=0)
    area = (theirs[:, 0] + theirs[:, 2]).clamp(min=1e-2) * (theirs[:, 1] + theirs[:, 3]).clamp(min=1e-2)
    own = (ours[:, 0] + ours[:, 2]).clamp(min=1e-2) * (ours[:, 1] + ours[:, 3]).clamp(min=1e-2)
    overlap = 1 - inner / (area + own - inner).clamp(min=1e-4)
    side = torch.stack([theirs[:, 0] + theirs[:, 2], theirs[:, 1] + theirs[:, 3]], 1).clamp(min=0.5).repeat(1, 2, 1)
    distance = ((ours - theirs).abs() / side).sum(1)
    return {
        "score": (score - floor).sum() / mass,
        "overlap": (overlap * weight).sum() / mass,
        "distance": (distance * weight).sum() / mass,
    }
