"""What each node shows of the demand of all nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.model import ServiceKey

from .clients import CONNECTED, WAITING
from .truth import RECENT_S, Wish

if TYPE_CHECKING:
    from .checks import Checks
    from .world import World

ORACLES = ("demand of a new client", "demand of an unknown node", "sum at rest")
# A report of workers each 5 s, of nodes at once, of the holder within 2 s.
_SOON_S = 14.0
_NODES_S = 70.0
# Those of workers, of nodes and of the holder.
_FIGURES_S = 56.0
# Of workers each 5 s, of nodes after a second; the holder lowers a sum each 15 s.
_LOWERED_S = 24.0


class SumChecks:
    """The oracles of sums."""

    def __init__(self, checks: Checks, world: World) -> None:
        self._checks = checks
        self._world = world

    def look(self) -> None:
        """Judge what is shown now."""
        if not self._world.now > self._checks.known.calm_at + _NODES_S:
            return
        used = {
            client.service
            for client in self._world.clients
            if client.state in (CONNECTED, WAITING)
            and client.worker is not None
            and client.worker.plane is not None
            and not self._checks.is_of_deleted(client)
            and self._world.now - client.needs_since > _SOON_S
        }
        for node in self._world.nodes:
            if node.agent is None or (shown := node.agent.demand) is None:
                continue
            if self._world.now - node.started_at < _NODES_S:
                continue
            for service, count in shown.items():
                key = f"{service.namespace}/{service.name}"
                if key in used and not self._checks.known.has_changed(key):
                    text = f"{node.name} shows no demand of {key}, which has clients"
                    self._checks.judge("demand of a new client", count >= 1, text)
                elif self._is_unknown:
                    text = f"{node.name} shows no demand of {key}, and a Node has no proxy"
                    self._checks.judge("demand of an unknown node", count >= 1, text)

    @property
    def _is_unknown(self) -> bool:
        """Whether a Node has had no proxy for long."""
        for item in self._world.etcd.items("nodes"):
            name = item["metadata"]["name"]
            is_old = self._world.now - self._checks.known.changed_at(f"node {name}") > _NODES_S
            if is_old and self._checks.lease(f"node.{name}") is None:
                return True
        return False

    def compare(self) -> None:
        """Judge the sums after a time without changes."""
        wishes = self._checks.known.wishes
        if not self._checks.known.names_workloads:
            return
        for node in self._world.nodes:
            shown = node.agent.demand if node.agent is not None else None
            if shown is None:
                self._checks.judge("sum at rest", False, f"{node.name} shows no demand")
                continue
            for service, count in shown.items():
                if (wish := wishes.get(_text(service))) is None or self._is_unknown:
                    continue
                least, most = self._sum(wish)
                text = f"{node.name} shows {count} of {wish.key}, not {least} to {most}"
                self._checks.judge("sum at rest", least <= count <= most, text)

    def _sum(self, wish: Wish) -> tuple[int, int]:
        """Return the least and the most that a Service's demand may be.

        A node that had a client a while ago may have one, for as long as demand lasts.
        """
        least = most = 0
        for node in self._world.nodes:
            here = [c for c in self._world.clients if c.node == node.name]
            of_it = [client for client in here if client.service == wish.key]
            open_ = [client for client in of_it if client.state in (CONNECTED, WAITING)]
            ends = [client.since for client in of_it]
            last = max(node.counted_since, self._checks.newest_pod(wish.key), *ends)
            is_recent = self._world.now - last < (wish.idle_s or RECENT_S) + _FIGURES_S
            least += sum(not self._checks.is_of_deleted(client) for client in open_)
            # The holder's figures don't follow at once.
            new = [each for each in of_it if self._world.now - each.since < _LOWERED_S]
            most += max(len({*open_, *new}), int(is_recent))
        return least, most


def _text(service: ServiceKey) -> str:
    return f"{service.namespace}/{service.name}"
