"""Clients that connect to a Service a hundred times a second, and count failed connections.

pod with prober.py ──log──▶ attempts ──between two moments──▶ Toll

Other clients send datagrams, or requests on persistent connections; each request counts like a
connection.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..objects import Object, pod
from ..waiting import wait_for
from .cluster import Cluster
from .images import AGNHOST_NAMES, OURS

NETEXEC = {
    "name": "web",
    "image": AGNHOST_NAMES[0],
    "args": ["netexec", "--http-port=8080"],
    "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
}
"""A server that answers with its pod's name: to HTTP on port 8080, to datagrams on port 8081."""
PROBER = Path(__file__).with_name("prober.py")
RATE = 25
"""Requests per second of a client: four clients open a hundred connections per second."""
TIMEOUT_S = 15.0
"""Longer than an answer takes on a busy machine; a lost packet gets no answer."""
LATE_S = 0.9
"""A connection that took this long lost its first packet, which is repeated after a second."""
SETTLE_S = TIMEOUT_S + 1.0
"""The time after which the log contains an attempt: slightly longer than the prober's timeout."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client: its node, network, kind and rate."""

    node: str
    on_host: bool
    kind: str = "TCP"
    """One of the prober's kinds."""
    rate: int = RATE

    @property
    def name(self) -> str:
        return f"client-{self.kind.lower()}-{'host' if self.on_host else 'pod'}-{self.node}"

    def pod(self, address: str, port: int) -> Object:
        """Return the client's pod, whose log can be read through the API server."""
        arguments = (address, port, self.rate, self.kind, TIMEOUT_S)
        program = ["/opt/userspace-proxy/bin/python", "-u", "-c", PROBER.read_text()]
        command = [*program, *map(str, arguments)]
        container = {"name": "client", "image": OURS, "command": command}
        return pod(self.name, container, nodeName=self.node, hostNetwork=self.on_host)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection: its start, its duration, and ``ok`` or the error."""

    start: float
    seconds: float
    outcome: str

    @property
    def end(self) -> float:
        return self.start + self.seconds


@dataclass(frozen=True, slots=True)
class Toll:
    """The attempts of clients in a period, and their failures."""

    made: int
    failed: Counter[str]
    late: int
    """Connections that succeeded after the kernel had retransmitted a packet."""
    outage_s: float
    """The longest time in which no connection of a client was answered."""

    @property
    def lost(self) -> int:
        """The number of failed connections."""
        return self.failed.total()

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.failed.items())
        return (
            f"{self.made} connections, {self.lost} failed{f' ({reasons})' if reasons else ''},"
            f" {self.late} late, {self.outage_s:.2f} s without one at most"
        )


class Clients:
    """The clients of a cluster, from their first to their last connection.

    Args:
        clients: Clients whose pods are ready and connect.
    """

    def __init__(self, cluster: Cluster, clients: Sequence[Client]) -> None:
        self._cluster = cluster
        self._clients = clients

    def toll(
        self, since: float, until: float, *, node: str | None = None, kind: str | None = None
    ) -> Toll:
        """Return the connections that began between two moments, and their failures.

        Args:
            since: Unix time.
            until: Unix time; the call waits until all attempts that began before have ended.
            node: Only this node's clients.
            kind: Only clients of this kind.
        """
        clients = [
            client
            for client in self._clients
            if node in (None, client.node) and kind in (None, client.kind)
        ]
        runs = [self._run(client, since, until) for client in clients]
        assert all(runs), "a client made no connection"
        return toll_of(runs, since, until)

    def wait_for_the_first(self) -> None:
        """Wait until each client has made its first connection, successful or not."""
        for client in self._clients:
            logs = partial(self._cluster.kubectl, "logs", client.name)
            wait_for(f"the first attempt of {client.name}", logs, deadline_s=60)

    def _run(self, client: Client, since: float, until: float) -> list[Attempt]:
        def attempts() -> list[Attempt] | None:
            found = list(read_attempts(self._cluster.kubectl("logs", client.name)))
            return found if found and found[-1].start > until + SETTLE_S else None

        found = wait_for(f"the attempts of {client.name}", attempts, deadline_s=60)
        return [attempt for attempt in found if since <= attempt.start < until]


def read_attempts(log: str) -> Iterator[Attempt]:
    for line in log.splitlines():
        start, seconds, outcome = line.split()
        yield Attempt(float(start), float(seconds), outcome)


def toll_of(runs: Sequence[Sequence[Attempt]], since: float, until: float) -> Toll:
    """Return the counts of all these attempts; the two moments only bound the outage."""
    attempts = list(itertools.chain.from_iterable(runs))
    return Toll(
        made=len(attempts),
        failed=Counter(attempt.outcome for attempt in attempts if attempt.outcome != "ok"),
        late=sum(attempt.seconds >= LATE_S for attempt in attempts if attempt.outcome == "ok"),
        outage_s=max(_outage(run, since, until) for run in runs),
    )


def _outage(run: Sequence[Attempt], since: float, until: float) -> float:
    answered = sorted(attempt.end for attempt in run if attempt.outcome == "ok")
    # An attempt within the period may be answered after the period's end.
    moments = [since, *answered, max(until, answered[-1] if answered else until)]
    return max(later - earlier for earlier, later in itertools.pairwise(moments))


def now() -> float:
    """Return the current time by the clock that the clients' logs use."""
    return time.time()
