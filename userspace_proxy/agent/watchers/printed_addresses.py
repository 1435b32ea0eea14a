"""Prints the addresses of Service ports as lines of JSON, for the parent process.

    rounds ──▶ applied Service ports ──differences from what was printed──▶ one line each

Rule 1: a stalled reader delays nothing else: while a line is being written, changes are collected,
and the next lines contain the differences since then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from ...log_fields import FieldLogger
from ...model import FrontendKind, PortKey, Side, SocketAddress
from ...steering import Bind
from ..rounds.changes import Progress
from ..rounds.component import Component
from ..rounds.options import WriteText
from ..rounds.served_port import ServedPort
from ..rounds.tasks import Supervisor

_log = FieldLogger("userspace_proxy.agent")


def dialled_address(served: ServedPort, bind: Bind) -> SocketAddress | None:
    """Return the address that clients of a Service port dial; None if it isn't served.

    The address is the cluster IP (else the first frontend's) or, with ``none``, the listener's.
    """
    frontends = served.plan.frontends
    frontend = next((f for f in frontends if f.kind is FrontendKind.CLUSTER_IP), frontends[0])
    listener = served.listeners.get(frontend)
    if listener is None:
        return None
    return frontend.address if bind is Bind.PROXY_PORT else listener.address


def address_lines(served_ports: Iterable[ServedPort], bind: Bind) -> dict[PortKey, str]:
    """Return the line of each served Service port, by its key, only for ``Side.ALL``."""
    lines: dict[PortKey, str] = {}
    for served in served_ports:
        address = dialled_address(served, bind)
        if address is not None and served.plan.key.side is Side.ALL:
            lines[served.plan.key] = _line(served, address)
    return lines


def changed_lines(before: Mapping[PortKey, str], now: Mapping[PortKey, str]) -> list[str]:
    """Return the changed lines, after a line with a null address for each port no longer served."""
    gone = [json.loads(line) for key, line in before.items() if key not in now]
    lines = [json.dumps({**one, "address": None, "endpoints": 0}) for one in gone]
    return lines + [line for key, line in now.items() if before.get(key) != line]


class AddressPrinter(Component):
    """Prints the addresses of one proxy's Services, and their changes."""

    def __init__(
        self,
        progress: Progress,
        served_ports: Iterable[ServedPort],
        bind: Bind,
        write: WriteText,
    ) -> None:
        self._progress = progress
        self._served_ports = served_ports
        self._bind = bind
        self._write = write

    async def start(self, supervisor: Supervisor) -> None:
        supervisor.start("addresses", self.run)

    async def run(self) -> None:
        """Print until cancelled, or until writing fails, usually because the reader has exited."""
        printed: Mapping[PortKey, str] = {}
        rounds = 0
        while True:
            rounds = await self._progress.round_after(rounds)
            now = address_lines(self._served_ports, self._bind)
            lines = changed_lines(printed, now)
            printed = now
            if not lines:
                continue
            try:
                await self._write("".join(f"{line}\n" for line in lines))
            except OSError as exc:
                fields = {"cause": exc.strerror or str(exc)}
                _log.warning("stopped printing addresses: %(cause)s", extra=fields)
                return


def _line(served: ServedPort, address: SocketAddress) -> str:
    plan = served.plan
    return json.dumps(
        {
            "namespace": plan.key.name.namespace,
            "service": plan.key.name.name,
            "port": plan.key.name.port,
            "protocol": str(plan.protocol),
            "family": str(plan.key.family),
            "address": str(address),
            "endpoints": len(plan.serving.endpoints),
        }
    )
