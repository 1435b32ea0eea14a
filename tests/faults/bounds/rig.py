"""Measures how one namespace's objects affect others, on a node with an agent and an API server.

    tenant's objects, changes, questions ──▶ agent ◀── another namespace's change, /livez

Rule 1: times exclude the time for which the agent's control process waited for a processor, as
counted by the kernel, because other programs cause it.
Rule 2: times are divided by the processor's slowness, which may change within seconds.
Rule 3: the baseline is the same agent without the tenant's objects.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster.waiting import wait_for
from tests.node.agents import HEALTH
from tests.node.api_servers import ApiServer
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

Object = dict[str, Any]

OTHERS = Service("others", "10.96.0.10")
EVERY_S = 0.25
"""The interval of the tenant's changes and queries."""
CHANGES = 16
"""The number of changes of the other namespace during the measurement."""
LIVEZ_S = 1.0
"""The timeout of the kubelet's probe."""
_REFERENCE_S = 0.003
"""The processor time of :func:`slowness` on the machine of docs/benchmarks.md."""


class Costs(NamedTuple):
    """The delays, failures and memory that affect others."""

    delay_s: float
    """The longest time from a change of the other namespace until clients noticed, by Rule 2."""
    silence_s: float
    """The longest time for an answer of ``/livez``, by Rule 2."""
    failed_in_a_row: int
    """The number of consecutive answers of ``/livez`` that exceeded the kubelet's timeout."""
    memory_mib: float
    """The idle memory of the control process."""

    def beyond(self, quiet: Costs) -> Costs:
        """Return these costs less those of a node without the tenant, but all failures."""
        return Costs(
            self.delay_s - quiet.delay_s,
            self.silence_s - quiet.silence_s,
            self.failed_in_a_row,
            self.memory_mib - quiet.memory_mib,
        )


class Node:
    """A node with an agent that reads from an API server.

    Args:
        folder: An empty folder.
        flags: The agent's flags.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        more = ("--workers=1", "--metrics-detail=service", *flags)
        self.testbed = Testbed(folder, "nftables", *more, clients=("pod", "node-1"))
        self.agent = self.testbed.agent
        self.api = ApiServer(self.testbed.node, self.testbed._sockets, folder)
        self.agent.source = f"--master={self.api.url}"
        self._pods = self.testbed.add_pods("one", "two", tcp=8080)
        self._answers: list[float] = []

    def start(self, objects: Iterable[Object]) -> None:
        """Start the node with these objects and another namespace's Service."""
        others = with_endpoints(OTHERS, self._pods[:1])
        self.api.start_with([*others.objects(), *objects])
        self.agent.start_until_ready()

    def measure(
        self,
        later: Sequence[Object],
        changes: Iterator[Sequence[Object]],
        ask: Callable[[], object],
    ) -> Costs:
        """Measure the other namespace while the tenant adds and changes objects, and queries."""
        delays, slownesses = list[float](), list[float]()
        # Wait until the start is complete.
        self._change(1)
        memory = self._memory_mib()
        with (
            self._watched(),
            _in_background(lambda: self.api.put(*next(changes, ()))),
            _in_background(ask),
        ):
            self.api.put(*later)
            for number in range(CHANGES):
                delays.append(self._change(number % 2))
                slownesses.append(slowness())
                select.select([], [], [], EVERY_S)
        silences, failed, longest, slow = self._answers, 0, 0, max(1.0, *slownesses)
        for silence in silences:
            failed = failed + 1 if silence > LIVEZ_S else 0
            longest = max(longest, failed)
        memory = max(memory, self._memory_mib())
        return Costs(max(delays) / slow, max(silences) / slow, longest, memory)

    def close(self) -> None:
        """Stop the agent and the API server."""
        self.api.kill()
        self.testbed.close()

    def _change(self, pod: int) -> float:
        """Move the other namespace's Service to another pod; return the seconds until then."""
        name = ("one", "two")[pod]
        others = with_endpoints(OTHERS, self._pods[pod : pod + 1])
        began = self._clock()
        self.api.put(*others.objects())
        client = self.testbed["pod"]
        wait_for(name, lambda: client.get(OTHERS.address) == name, hint=self.agent.log)
        return self._clock() - began

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self._answers = []
        with _in_background(self._ask_livez, every_s=0.05):
            yield

    def _ask_livez(self) -> None:
        began = self._clock()
        with self.testbed["node-1"].tcp() as sock:
            sock.connect(("127.0.0.1", HEALTH))
            sock.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            answer = sock.recv(4096)
        took = self._clock() - began
        # There is no answer if the agent closed the connection to admit another client.
        self._answers.append(took if b" 200 " in answer else max(took, 2 * LIVEZ_S))

    def _clock(self) -> float:
        """Return the time in seconds, less the time for which the agent waited for a processor."""
        text = Path(f"/proc/{self.agent.pid}/schedstat").read_text()
        return time.monotonic() - int(text.split()[1]) / 1e9

    def _memory_mib(self) -> float:
        text = Path(f"/proc/{self.agent.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def slowness() -> float:
    """Return the time that some Python takes now, as a multiple of the reference's time."""
    began, counts = time.thread_time(), dict[str, int]()
    for number in range(10_000):
        name = str(number)
        counts[name] = counts.get(name[:-1], 0) + number
    return (time.thread_time() - began) / _REFERENCE_S


@contextmanager
def _in_background(act: Callable[[], object], *, every_s: float = EVERY_S) -> Iterator[None]:
    """Call a function at intervals in a thread; raise its failure at the end."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(every_s):
            act()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            yield
        finally:
            over.set()
            running.result()
