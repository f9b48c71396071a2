"""Clients of a simulated cluster, each of which keeps account of everything that it hears."""

from sluiceway_simulation.clients.calls import PATIENCE_S, Client, Timed
from sluiceway_simulation.clients.heard import Ask, Heard
from sluiceway_simulation.clients.streams import Stream

__all__ = ["PATIENCE_S", "Ask", "Client", "Heard", "Stream", "Timed"]
