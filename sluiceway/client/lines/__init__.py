"""The connections of one client: one to each server of its address, and how they are found."""

from sluiceway.client.lines.channels import ChannelMaker
from sluiceway.client.lines.lines import Lines

__all__ = ["ChannelMaker", "Lines"]
