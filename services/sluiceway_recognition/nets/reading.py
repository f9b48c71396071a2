"""A whole reading as one module: uint8 pixels in, what the head answers out. Nothing larger passes to the host."""

# torch is an extra: without it mypy knows no base class. mypy reads the next line.
# mypy: allow-subclassing-any

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sluiceway_recognition.plan import Normalisation
from sluiceway_recognition.types import Head

__all__ = ["Activation", "Reading"]

# What a network ends in: nothing (logits), the probabilities themselves, or their logarithms.
Activation = Literal["none", "probabilities", "logarithms"]


class Reading(nn.Module):
    """Normalising and padding, a network, and the reduction of its head.

    Args:
        net: normalised crops [N, C, H, W] to text: [N, T, C]; classify: [N, C]; embed: [N, D], perhaps with dimensions
            of 1 between or behind.
        head: decides the reduction.
        normalisation: before the network.
        activation: what the network ends in; an embedding has none.
        dtype: of the network's weights and inputs.
        brightness: shares of the channels in the one that the network takes; None for all three.
        steps_first: the network gives [T, N, C].
        autocast: compute in this instead, except where torch knows better; for networks of users, whose weights stay.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        head: Head,
        normalisation: Normalisation,
        activation: Activation = "none",
        dtype: torch.dtype = torch.float32,
        autocast: torch.dtype | None = None,
        brightness: Sequence[float] | None = None,
        steps_first: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self._head = head
        self._activation = activation
        self._dtype = dtype
        self._autocast = autocast
        self._black = normalisation.black
        self._steps_first = steps_first
        channels = 3 if brightness is None else 1
        self.register_buffer("brightness", None if brightness is None else _per_channel(tuple(brightness)))
        self.register_buffer("mean", _per_channel(normalisation.mean[:channels]))
        self.register_buffer("scale", _per_channel(tuple(1 / value for value in normalisation.std[:channels])))

    def forward(self, pixels: Tensor, widths: Tensor) -> tuple[Tensor, ...]:
        """Read crops.

        Args:
            pixels: uint8 [N, H, W, 3]; what lies right of a crop's width does not matter.
            widths: int32 [N], of the crops; 0 for a row that is no crop.

        Returns:
            text: int32 [N, T] most probable classes and float32 [N, T] their probabilities; classify: float32 [N, C]
            probabilities; embed: float32 [N, D].
        """
        columns = torch.arange(pixels.shape[2], device=pixels.device)
        inside = (columns < widths[:, None])[:, None, None, :]
        # In 32 bits up to here, so that pixels are rounded once; the padding is exactly zero.
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)
        if self.brightness is not None:
            images = (images * self.brightness).sum(dim=1, keepdim=True)
        if self._black:
            images = torch.where(inside, images, torch.zeros_like(images))
        normalised = (images - self.mean) * self.scale
        if not self._black:
            normalised = torch.where(inside, normalised, torch.zeros_like(normalised))
        normalised = normalised.to(self._dtype)
        with self._arithmetic(pixels.device.type):
            output = self.net(normalised)
        return self._reduce(output)

    def _arithmetic(self, device: str) -> contextlib.AbstractContextManager[None]:
        if self._autocast is None:
            return contextlib.nullcontext()
        autocast: contextlib.AbstractContextManager[None] = torch.autocast(device, self._autocast, cache_enabled=False)
        return autocast

    def _reduce(self, output: Tensor) -> tuple[Tensor, ...]:
        if self._head is Head.EMBED:
            return (output.flatten(1).float(),)
        if self._head is Head.CLASSIFY:
            return (self._probabilities(output.flatten(1).float()),)
        if self._steps_first:
            output = output.transpose(0, 1)
        best, indices = output.float().max(dim=-1)
        if self._activation == "none":
            # The greatest probability without writing all of them: exp(max) / sum(exp).
            best = torch.exp(best - torch.logsumexp(output.float(), dim=-1))
        elif self._activation == "logarithms":
            best = best.exp()
        return indices.to(torch.int32), best

    def _probabilities(self, values: Tensor) -> Tensor:
        if self._activation == "probabilities":
            return values
        return values.exp() if self._activation == "logarithms" else values.softmax(dim=-1)


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
