"""The open TCP connections of one data plane, with their deadlines and watchers."""

from __future__ import annotations

from collections.abc import Callable

from .accepted_headers import AcceptedHeaders
from .ageing import Ageing
from .descriptors import DESCRIPTORS
from .engine import Engine
from .held_acks import HeldAcks
from .late_reset import LateResets
from .probes import Probes
from .removals import Removals
from .shedding import Shedding
from .tcp import ConnectionOwner, TcpConnection
from .tcp_accounts import TcpAccounts
from .timeouts import Timeouts


class TcpConnections(ConnectionOwner):
    """All open connections on one engine, with their deadlines."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.reactor, self.pipes, self.dialer = engine.reactor, engine.pipes, engine.dialer
        self.client_dialer = engine.client_dialer
        self._descriptors = engine.descriptors
        self.open: dict[TcpConnection, None] = {}
        """In the order of acceptance, so that ties are always broken in the same way."""
        tuning, loop, clock = engine.tuning, engine.loop, engine.clock
        self.probes = Probes(engine)
        self.accounts = TcpAccounts(engine, self.probes)
        self.shedding = Shedding(self.open, engine.descriptors, engine.memory, engine.entries)
        self.dial_deadlines = Timeouts(
            loop, clock, tuning.connect_timeout_s, TcpConnection.timed_out
        )
        self.client_deadlines = Timeouts(
            loop, clock, tuning.client_timeout_s, TcpConnection.client_timed_out
        )
        """Deadlines of clients that no endpoint has answered yet."""
        self.openings = {}
        self.held_acks = HeldAcks(engine.reactor)
        self.late_resets = LateResets(loop, clock, tuning.reset_wait_s)
        trusted = tuning.proxy_protocol_from
        self.headers = AcceptedHeaders(engine, trusted) if trusted else None
        """None if no peer sends PROXY headers."""
        self.ageing = Ageing(loop, clock, tuning, self.open)
        self.removals = Removals(loop, clock, self.open, tuning.client_timeout_s)
        self.on_idle: Callable[[], None] | None = None
        """Called whenever the last connection has ended."""

    def __len__(self) -> int:
        return len(self.open)

    def began(self, connection: TcpConnection) -> None:
        if not self.open:
            self.ageing.start()
        self.open[connection] = None
        self.held_acks.start(connection, connection.started)
        self._descriptors.take(DESCRIPTORS)

    def ended(self, connection: TcpConnection) -> None:
        """Remove a closed connection; its deadlines have been stopped."""
        self.open.pop(connection, None)
        self.held_acks.stop(connection)
        self.late_resets.forget(connection)
        if self.headers is not None:
            self.headers.forget(connection)
        self._descriptors.give(DESCRIPTORS)
        if self.on_idle is not None and not self.open:
            self.on_idle()

    def end_late(self, connection: TcpConnection) -> bool:
        """End a connection once its sent bytes have arrived; False if none are in flight."""
        return self.late_resets.begin(connection)

    def reset_all(self) -> int:
        """Reset all connections; return their number."""
        left = list(self.open)
        for connection in left:
            connection.close()
        return len(left)

    def close(self) -> None:
        """Reset all connections, and stop every timer. Idempotent."""
        self.reset_all()
        self.probes.close()
        self.held_acks.close()
        self.late_resets.close()
        self.ageing.close()
        self.removals.close()
        if self.headers is not None:
            self.headers.close()
        self.dial_deadlines.close()
        self.client_deadlines.close()
