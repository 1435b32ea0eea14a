"""Drawn mutants that no seed can find, each with the reason; they aren't counted."""

from __future__ import annotations

from collections.abc import Mapping

EQUIVALENT: Mapping[tuple[str, str, str], str] = {
    (
        "dataplane.tcp_accounts",
        "if asked_s < PATIENCE_S or not up.bytes_moved:",
        "if asked_s <= PATIENCE_S or not up.bytes_moved:",
    ): "two moments are never exactly that far apart",
    (
        "dataplane.tcp",
        "if up is None or down is None or exchange is None:",
        "if up is None or up is None or exchange is None:",
    ): "both directions are made at once",
    (
        "dataplane.tcp",
        "reactor.calls.send_acks(fd)",
        "pass",
    ): "acknowledgements aren't simulated (ADR 0099)",
    (
        "kernel.listening_sockets",
        "sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)",
        "sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 2)",
    ): "any number but 0 sets it",
    (
        "dataplane.relay",
        "self.reads_to_empty = False",
        "self.reads_to_empty = True",
    ): "each short read is followed by one that finds nothing",
    (
        "dataplane.shedding",
        "self._is_for_memory = False",
        "pass",
    ): "it is set before it is read",
    (
        "cluster.persistent",
        "for mine, others in zip(self._parts, other._parts, strict=True):",
        "for mine, others in zip(self._parts, other._parts, strict=False):",
    ): "all have equally many parts",
    (
        "causes.say",
        "if not is_now and row.past:",
        "if not is_now or row.past:",
    ): "only a sentence for people differs",
}
"""For each module, the original line, its replacement, and the reason."""
