"""A proxy in a thread that records each Service's last connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.model import ServiceKey

from .decisions import Decision, Decisions
from .proxy_with_faults import BlockingProxyWithFaults


class ProxyWithDecisions(BlockingProxyWithFaults):
    """A proxy in its own thread, with the arguments of ``Proxy``."""

    def __init__(self, **arguments: Any) -> None:
        options = arguments.pop("options", None) or Options()
        tuning = replace(options.tuning, connection_log=1.0)
        super().__init__(**arguments, options=replace(options, tuning=tuning))
        self._decisions = Decisions()

    def start(self) -> None:
        """Start the thread and the proxy in it."""
        super().start()
        self._decisions.begin(self._thread.ident)

    def close(self) -> None:
        """Stop the proxy and end its thread. Idempotent."""
        self._decisions.end()
        super().close()

    def decisions_of(self, service: ServiceKey) -> Sequence[Decision]:
        """Return a Service's last ended connections, oldest first."""
        return self._decisions.of(service)
