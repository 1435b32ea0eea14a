"""The table of mutants: each is one fault, of a kind that such programs have had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """One place of one module, and what replaces it."""

    module: str
    """Of the package, without ``.py``."""
    old: str
    """Occurs once."""
    new: str
    package: str = "dataplane"
    """Empty: the module is in none."""

    @property
    def name(self) -> str:
        """The module's name, for imports."""
        return ".".join(filter(None, ("userspace_proxy", self.package, self.module)))

    @property
    def path(self) -> Path:
        """The module's file, below the repository."""
        return Path(*self.name.split(".")).with_suffix(".py")

    def apply(self, source: str) -> str:
        assert source.count(self.old) == 1, f"{self.module} has {self.old!r} not once"
        return source.replace(self.old, self.new)


MUTANTS: Mapping[str, Mutant] = {
    "missing-deregister": Mutant(
        "reactor",
        "        self._handlers.pop(sock.fileno(), None)\n        if self._is_dispatching:",
        "        if self._is_dispatching:",
    ),
    "close-within-a-dispatch": Mutant(
        "reactor",
        "        if self._is_dispatching:\n            self._late.append(sock)",
        "        if self is None:\n            self._late.append(sock)",
    ),
    "turn-not-scheduled": Mutant(
        "reactor",
        "        if self._ready:\n            self._schedule()\n        ended",
        "        ended",
    ),
    "swapped-direction": Mutant(
        "tcp",
        "self.down = Direction(self, sock, self.client)",
        "self.down = Direction(self, self.client, sock)",
    ),
    "swapped-wake": Mutant(
        "tcp",
        "        if direction is up:\n            down.wakes_other = True",
        "        if direction is down:\n            down.wakes_other = True",
    ),
    "lost-fin": Mutant(
        "relay", "            self.sink.shutdown(_socket.SHUT_WR)", "            pass"
    ),
    "lost-edge": Mutant(
        "relay",
        "            self.reads_to_empty = True\n            if events & epoll.ERR:",
        "            if events & epoll.ERR:",
    ),
    "off-by-one-in-the-rest": Mutant("relay", "buffer[sent:count]", "buffer[sent + 1 : count]"),
    "flush-without-pump": Mutant(
        "relay",
        "        self.pending = None\n        self.is_stuck = False\n        self.pump()",
        "        self.pending = None\n        self.is_stuck = False",
    ),
    "sink-not-watched": Mutant(
        "relay",
        "        else:\n            self.connection.sink_is_full(self)",
        "        else:\n            pass",
    ),
    "reset-as-fin": Mutant(
        "relay",
        "            except OSError as exc:\n                self.connection.abort(exc.errno)\n"
        "                return\n            if count == 0:",
        "            except OSError:\n                count = 0\n            if count == 0:",
    ),
    "turn-after-the-close": Mutant(
        "relay",
        "        if not self.connection.is_closed:\n            self.pump()",
        "        self.pump()",
    ),
    "urgent-mark-as-the-end": Mutant("relay", "return not self._has_urgent", "return True"),
    "full-pipe-used-again": Mutant(
        "pipes", "        if left_bytes:\n", "        if left_bytes < 0:\n"
    ),
    "pipe-half-closed": Mutant(
        "pipes",
        "        os.close(pipe.read_end)\n        os.close(pipe.write_end)",
        "        os.close(pipe.read_end)\n        os.close(pipe.read_end)",
    ),
    "reset-not-late": Mutant("late_reset", "            if left:\n", "            if left < 0:\n"),
    "late-reset-without-end": Mutant(
        "late_reset",
        "now - waiting.moved_at >= self._wait_s or now - waiting.began >= LIMIT_S",
        "now - waiting.began >= 10 * LIMIT_S",
    ),
    "end-without-reset": Mutant(
        "socket_options",
        '_RESET = struct.pack("ii", 1, 0)',
        '_RESET = struct.pack("ii", 0, 0)',
        "kernel",
    ),
    "counter-not-decremented": Mutant(
        "tcp", "            exchange.note_ended(up.is_stalled)", "            pass"
    ),
    "bytes-counted-twice": Mutant(
        "tcp",
        "        up.bytes_counted, down.bytes_counted = up.bytes_moved, down.bytes_moved",
        "        up.bytes_counted = up.bytes_moved",
    ),
    "endpoint-socket-leaked": Mutant(
        "tcp_dial",
        "            reset_on_close(self.sock)\n            self._drop_socket()",
        "            reset_on_close(self.sock)",
    ),
    "deadline-not-stopped": Mutant(
        "tcp_dial",
        "        self._owner.client_deadlines.stop(self)\n        if self.is_waiting and",
        "        if self.is_waiting and",
    ),
    "held-ack-not-stopped": Mutant(
        "tcp_connections", "        self.held_acks.stop(connection)\n", ""
    ),
    "descriptor-not-returned": Mutant(
        "tcp_connections",
        "self.engine.descriptors.give(DESCRIPTORS)",
        "self.engine.descriptors.give(1)",
    ),
    "timer-not-set-again": Mutant(
        "timeouts",
        "            if self._due:\n                due = next",
        "            if not self._due and self:\n                due = next",
    ),
    "pause-without-end": Mutant(
        "tcp_listener",
        "unregister(self.sock)\n        self._engine.descriptors.wait(",
        "unregister(self.sock)\n        (lambda *_: None)(",
    ),
    "waits-off-by-one": Mutant(
        "waiting_room", "while len(clients) >= share:", "while len(clients) > share:"
    ),
    "waits-twice-as-long": Mutant(
        "waiting_room",
        "self._reactor.now - self._hold.seconds, BATCH",
        "self._reactor.now - 2 * self._hold.seconds, BATCH",
    ),
    "limit-off-by-one": Mutant(
        "loads", "self.of(endpoint) >= self.limit", "self.of(endpoint) > self.limit"
    ),
    "ended-dial-counted": Mutant(
        "tcp_dial",
        "                self.group.loads.dial_ended(self.endpoint)",
        "                pass",
    ),
    "no-ejection": Mutant(
        "outcomes",
        "        if self._balancers.current.failed(endpoint, now, is_silent=is_silent):",
        "        if is_silent and self._balancers.current.failed(endpoint, now):",
    ),
    "pins-lost": Mutant(
        "balancers",
        "        balancer.update(\n            endpoints,\n"
        "            affinity_timeout_s=self._serving.affinity_timeout_s,",
        "        balancer.update(\n            endpoints,\n            affinity_timeout_s=None,",
    ),
    "flow-of-another-client": Mutant(
        "udp", "key = (address, local.key)", "key = (address[0], local.key)"
    ),
    "flow-not-removed": Mutant("udp", "        self.table.remove(flow)", "        pass"),
    "datagram-sent-twice": Mutant(
        "udp",
        "            else:\n                return refusal\n",
        "            else:\n                refusal = refusal or 0\n",
    ),
    "redials-stop": Mutant(
        "redials",
        "        finally:\n            self._is_scheduled = False\n",
        "        finally:\n",
    ),
    "late-retry-after-a-shortage": Mutant("descriptors", "_RETRY_S = 0.25", "_RETRY_S = 2.5"),
    "turns-backwards": Mutant("waiting_room", "self._pass.rest.popleft()", "self._pass.rest.pop()"),
}
"""By name."""
