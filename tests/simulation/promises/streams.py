"""One side's bytes are read in order by the other, and a FIN comes after all of them.

Bytes are compared with the sent ones as soon as they are read: see ``actors``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .promise import Promise

if TYPE_CHECKING:
    from ..actors import Party

_BY_PROXY = {"evicted", "endpoint removed", "shutdown", "idle"}


class Streams(Promise):
    """Judges the streams of one run."""

    name = "streams"

    def all_read(self) -> None:
        """Check that all sent bytes have arrived, although no later bytes pushed them."""
        world = self.world
        for client in world.clients_seen.all.values():
            party, other = client.party, client.other
            if other is None or not (client.is_open and party.is_orderly and other.is_orderly):
                continue
            if client.joined_at > world.finishing_at - world.plan.calm_s:
                continue
            for sender, reader in ((party, other), (other, party)):
                name = reader.stream.name
                why = f"{name} has read {reader.heard} of {sender.sent} B so far"
                self.check(reader.heard == sender.sent, why)
                is_told = reader.heard_fin or not sender.has_finished
                self.check(is_told, f"{name} has read no FIN so far")

    def all_ended(self) -> None:
        """Check that each side has got a FIN or an RST, as the other side's end requires."""
        world = self.world
        for party in (*world.clients.values(), *world.accepted.values()):
            self.check(party.is_done, f"{party.stream.name} has seen no end")
        for number, party in world.clients.items():
            is_false = party.other is None and party.heard_fin
            self.check(not is_false, f"client {number} has read a FIN, and wasn't joined")
        for client in world.clients_seen.all.values():
            party, other = client.party, client.other
            if other is None or client.right is None:
                continue
            arrived = client.left.received_bytes - party.announced, client.right.received_bytes
            ways = (party, other, arrived[0]), (other, party, arrived[1])
            is_clean = party.is_orderly and other.is_orderly and client.cause not in _BY_PROXY
            for sender, reader, bytes_ in ways:
                self._check_way(sender, reader, client.cause)
                if is_clean:
                    self._check_clean(sender, reader, client.cause)
                if client.cause == "reset":
                    self._check_reset(sender, reader, bytes_)

    def _check_way(self, sender: Party, reader: Party, cause: str) -> None:
        name = reader.stream.name
        if reader.heard_fin:
            self.check(sender.has_finished, f"{name} read a FIN that wasn't sent ({cause})")
            why = f"{name} read a clean end after {reader.heard} of {sender.sent} B ({cause})"
            self.check(reader.heard == sender.sent, why)
        elif sender.has_reset and reader.is_orderly:
            self.check(bool(reader.error), f"{name} has seen no RST ({cause})")

    def _check_clean(self, sender: Party, reader: Party, cause: str) -> None:
        is_whole = not reader.error and reader.heard_fin and reader.heard == sender.sent
        why = f"read {reader.heard} of {sender.sent} B, error {reader.error} ({cause})"
        self.check(is_whole, f"{reader.stream.name} {why}")

    def _check_reset(self, sender: Party, reader: Party, arrived: int) -> None:
        """Check that a side that reads has got the bytes before an RST."""
        is_prompt = self.world.calm_at < (sender.reset_at or 0.0) - 1.0
        if is_prompt and reader.is_orderly and not reader.heard_fin:
            why = f"{reader.stream.name} read {reader.heard} of {arrived} B before the RST"
            self.check(reader.heard >= arrived, why)
