"""The loads that clients put on a way, each with its measurement.

Rule 1: load generators and backends are separate processes, outside the proxy.
Rule 2: the proxy's CPU time is the sum over its processes while a load runs, per unit of work. The
machine's CPU time covers everything, including client, backends and interrupts.
"""

from __future__ import annotations

import abc
import resource
import threading
from collections.abc import Collection, Iterator

from userspace_proxy.errors import SandboxError

from . import open_loop
from .generators import MARGIN_S, hold, read_wrk, run_goload, timings
from .metrics import NotMeasured, Values
from .processes import cpu_seconds, descriptors, machine_cpu_seconds, memory_bytes
from .samples import Samples
from .tools import find_program
from .way import Way

BYTES_IN_GB = 1e9

IDLE_EVERY_S = 0.5
IDLE_CHECKS = 20

IN_KERNEL = frozenset({"direct", "dnat", "kube-proxy", "ours-kernel", "ours-sockets"})
"""The keys of ways without a proxy between client and pod."""

_TIMED = ("cpu_us", "machine_us", "p50_ms", "p99_ms", "errors")


class Meter:
    """Measures the CPU time of a way's processes, and of the whole machine, within its block."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._spent: list[float] = []

    def __enter__(self) -> Meter:
        self._began = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self._spent = [now - began for now, began in zip(self._now(), self._began, strict=True)]

    def each(
        self, count: float, metrics: tuple[str, str] = ("cpu_us", "machine_us"), unit: float = 1e-6
    ) -> Values:
        """Return the CPU time per unit of work, in ``unit`` seconds.

        It is empty if there was no work, and lacks the first metric if the way has no process.
        """
        if not count:
            return {}
        values = dict(zip(metrics, (spent / unit / count for spent in self._spent), strict=True))
        if not self._way.pids():
            del values[metrics[0]]
        return values

    def _now(self) -> tuple[float, float]:
        return cpu_seconds(self._way.pids()), machine_cpu_seconds()


class Load(abc.ABC):
    """One kind of traffic.

    ``rate`` is the metric by which ways are compared; higher values are better.
    """

    key: str
    short: str
    """The name of the load."""
    details: str = ""
    """Details beyond the name."""
    port: str
    rate: str
    metrics: tuple[str, ...]
    rounds_at_most: int | None = None
    skips: frozenset[str] = frozenset()
    """The keys of ways that this load skips."""
    needs: str | None = None
    """The key of another load, whose samples of the same run this load needs; None for none."""

    def prepare(self, samples: Samples) -> None:  # noqa: B027 - most need nothing
        """Read the needed values from this run's samples; called in each round, before ``run``."""

    def suits(self, way: Way) -> bool:
        """Return whether the load can be put on a way."""
        return self.port in way.serves and way.key not in self.skips

    @property
    def uses_ports_up(self) -> bool:
        """Whether clients close first, so that the node's source ports stay in TIME_WAIT."""
        return self.port == "echo"

    @abc.abstractmethod
    def run(self, way: Way, seconds: float) -> Values:
        """Put the load on a way, and return the measured values.

        Raises:
            NotMeasured: The load can't be put on this way.
            SandboxError: The load failed.
        """


class WrkLoad(Load):
    """HTTP requests by wrk with one thread; backends answer 128 bytes.

    Args:
        close: Whether each request has its own connection; otherwise 64 connections are kept.
    """

    port = "http"

    def __init__(self, key: str, short: str, details: str, *, close: bool) -> None:
        self.key, self.short, self.details, self.close = key, short, details, close
        self.rate = "connections" if close else "requests"
        self.metrics = (self.rate, *_TIMED)

    def run(self, way: Way, seconds: float) -> Values:
        # wrk accepts only whole seconds.
        command = [find_program("wrk"), "-t1", "-c64", f"-d{max(1, round(seconds))}s", "--latency"]
        if self.close:
            command += ["-H", "Connection: close"]
        command.append(f"http://{way.address(self.port)}/")
        with Meter(way) as meter:
            done = way.site.client.run(way.as_client(command), timeout=seconds + MARGIN_S)
        said = read_wrk(done.stdout)
        count = said.pop("count")
        return {self.rate: said.pop("rate"), **said, **meter.each(count)}


class GoLoad(Load):
    """A timed load of goload.

    Args:
        words: goload's command and flags.
    """

    def __init__(
        self, key: str, short: str, details: str, *words: str, port: str, rate: str
    ) -> None:
        self.key, self.short, self.details, self.port, self.rate = key, short, details, port, rate
        self.words = words
        self.metrics = (rate, *_TIMED)

    def run(self, way: Way, seconds: float) -> Values:
        with Meter(way) as meter:
            said = run_goload(way, self.port, seconds, *self.words)
        return {
            self.rate: said["count"] / said["seconds"],
            **timings(said),
            **meter.each(said["count"]),
        }


class DelayedAckLoad(GoLoad):
    """Exchanges on new connections in which one side waits if the proxy delays an ACK.

    Args:
        words: Flags of goload's command ``request``.
    """

    # On these ways, the kernel adds no ACK; ``direct`` shows the behaviour of the peers.
    skips = IN_KERNEL - {"direct"}
    rounds_at_most = 3

    def __init__(self, key: str, short: str, *words: str, port: str) -> None:
        words = ("request", "--parallel=4", *words)
        super().__init__(key, short, "", *words, port=port, rate="connections")

    def run(self, way: Way, seconds: float) -> Values:
        values = super().run(way, seconds)
        if values["errors"]:
            raise SandboxError(f"{values['errors']:.0f} exchanges had no answer")
        return values


class OpenLoad(Load):
    """Keep-alive requests at fixed times; see ``open_loop``.

    Args:
        share: The rate, as a share of the rate of the load ``keepalive``, a closed loop.
        of: The way with that rate, and the only measured way besides ``direct``; None to use the
            slowest proxy's rate, and measure all ways.
    """

    port, rate, needs = "http", "requests", "keepalive"
    metrics = ("requests", *open_loop.QUANTILES, "late_percent", "errors")

    def __init__(self, key: str, short: str, share: float, of: str | None = None) -> None:
        self.key, self.short, self.share, self.of = key, short, share, of
        self._rate: float | None = None

    def suits(self, way: Way) -> bool:
        return super().suits(way) and (self.of is None or way.key in {"direct", self.of})

    def prepare(self, samples: Samples) -> None:
        ways = {self.of} if self.of else {*samples.ways(self.needs)} - IN_KERNEL
        highest = open_loop.slowest_rate(samples, self.needs, self.rate, ways)
        self._rate = highest and highest * self.share

    def run(self, way: Way, seconds: float) -> Values:
        if self._rate is None:
            whose = self.of or "a proxy"
            raise NotMeasured(f"needs the rate of keep-alive requests of {whose}")
        flags = f"--rate={self._rate:.1f}", f"--connections={open_loop.CONNECTIONS}"
        said = run_goload(way, self.port, seconds * open_loop.LENGTH, "open", *flags)
        return {"scheduled": self._rate, **open_loop.read_open(said)}


class BulkLoad(Load):
    """Bytes from pods to the client, at the highest possible rate.

    Args:
        streams: The number of connections.
    """

    port, rate = "source", "gbits"
    metrics = ("gbits", "cpu_s_per_gb", "machine_s_per_gb")

    def __init__(self, streams: int) -> None:
        self.key, self.streams = f"bulk{streams}", streams
        self.short = f"bulk, {streams} stream{'s' * (streams > 1)}"

    def run(self, way: Way, seconds: float) -> Values:
        with Meter(way) as meter:
            said = run_goload(way, self.port, seconds, "bulk", f"--streams={self.streams}")
        gigabytes = said["bytes"] / BYTES_IN_GB
        return {
            "gbits": gigabytes * 8 / said["seconds"],
            **meter.each(gigabytes, ("cpu_s_per_gb", "machine_s_per_gb"), unit=1.0),
        }


class HeldLoad(Load):
    """Many connections: the cost of an idle one, and messages on one connection after the other.

    Args:
        connections: The number of connections.
    """

    port, rate = "echo", "exchanges"
    metrics = ("exchanges", "cpu_us", "p99_ms", "bytes_each", "descriptors_each", "base_mb")
    # The kernel's ways use no user memory.
    skips = IN_KERNEL
    rounds_at_most = 3

    def __init__(self, connections: int) -> None:
        self.key, self.connections = f"held{connections}", connections
        self.short = f"{connections:,} connection{'s' * (connections > 1)}"

    def run(self, way: Way, seconds: float) -> Values:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        needed = way.descriptors_each * self.connections
        if needed > limit:
            raise NotMeasured(f"would need {needed:,} descriptors; the limit is {limit:,}")
        # Memory that an earlier load has freed would be reused, and so not be counted.
        way.restart()
        _wait_until_idle(way)
        before = memory_bytes(way.pids()), descriptors(way.pids())
        with hold(way, self.port, self.connections, seconds) as client:
            grown = memory_bytes(way.pids()) - before[0]
            more = descriptors(way.pids()) - before[1]
            with Meter(way) as meter:
                said = client.talk(seconds)
        values = {
            "exchanges": said["count"] / said["seconds"],
            **timings(said),
            **meter.each(said["count"]),
            "base_mb": before[0] / 1e6,
        }
        # For few connections, the result would be noise.
        if self.connections >= 1000:
            values["bytes_each"] = grown / self.connections
            values["descriptors_each"] = more / self.connections
        return values


class SilentLoad(Load):
    """One of two endpoints stops answering, while 64 clients connect, echo and close.

    The first moments of the silence aren't counted: clients that were dialling then must wait for
    the connect timeout. The counted window is long enough for a probe of the silent endpoint.
    """

    key = "silent"
    short = "one silent endpoint of two"
    details = "64 clients that connect, echo and close"
    port, rate = "echo", "one_silent"
    metrics = ("one_silent", "both_alive", "share", "max_ms", "errors")
    skips = IN_KERNEL | {
        "haproxy",
        "haproxy-newer",
        "haproxy-client",
        "nginx",
        "ours-local",
    }
    settle_s = 1.5
    window_s = 6.5
    rounds_at_most = 5

    def run(self, way: Way, seconds: float) -> Values:
        way.restart()
        echo = ("echo", "--parallel=64")
        alive = run_goload(way, self.port, seconds, *echo)
        # The proxy would also dial for connections that are still in its queue.
        way.wait_until_answered()
        silenced = way.site.pods[1]
        silenced.drop_traffic()
        try:
            said = run_goload(way, self.port, self.window_s, *echo, f"--settle={self.settle_s}")
        finally:
            silenced.pass_traffic()
            way.restart()
        both, one = (s["count"] / s["seconds"] for s in (alive, said))
        return {
            "both_alive": both,
            "one_silent": one,
            "share": one / both if both else 0.0,
            "max_ms": said["max_us"] / 1e3,
            "errors": said["errors"],
        }


def _delayed_ack_loads() -> Iterator[Load]:
    """Yield each load with and without TCP_NODELAY on the socket of the peer that would wait."""
    for key, what, flag, nagle, port in (
        ("client2", "client writes twice", "--writes=2", "--nagle", "request"),
        ("server2", "server writes twice", "--server-writes=2", "--server-nagle", "request"),
        ("banner", "server speaks first", "--banner", "--server-nagle", "banner"),
    ):
        yield DelayedAckLoad(key, what, flag, port=port)
        yield DelayedAckLoad(f"{key}-nagle", f"{what}, no TCP_NODELAY", flag, nagle, port=port)


LOADS: dict[str, Load] = {
    load.key: load
    for load in (
        WrkLoad("close", "short connections, wrk", "`Connection: close`, 64 clients", close=True),
        GoLoad(
            "echo",
            "short connections, echo",
            "connect, 64 bytes there and back, close; 32 clients",
            "echo",
            "--parallel=32",
            port="echo",
            rate="connections",
        ),
        WrkLoad("keepalive", "keep-alive requests", "wrk, 64 connections", close=False),
        BulkLoad(1),
        BulkLoad(8),
        *(
            GoLoad(
                f"udp{sockets}",
                f"UDP, {sockets} socket{'s' * (sockets > 1)}",
                "64 bytes there and back, one datagram in flight for each socket",
                "udp",
                f"--sockets={sockets}",
                port="udp",
                rate="exchanges",
            )
            for sockets in (1, 16)
        ),
        OpenLoad("open10", "a tenth of the slowest proxy's highest rate", 0.1),
        OpenLoad("open25", "a quarter of the slowest proxy's highest rate", 0.25),
        OpenLoad("open50", "half of the slowest proxy's highest rate", 0.5),
        OpenLoad("open-ours", "half of this proxy's own highest rate", 0.5, of="ours"),
        *_delayed_ack_loads(),
        *(HeldLoad(connections) for connections in (1, 100, 2000, 8000)),
        SilentLoad(),
    )
}


def with_needed(keys: Collection[str]) -> list[Load]:
    """Return the loads with these keys and the loads that they need, in the order of LOADS."""
    wanted = {*keys, *(LOADS[key].needs for key in keys)}
    return [load for key, load in LOADS.items() if key in wanted]


def _wait_until_idle(way: Way) -> None:
    """Wait up to 10 s until a way's memory is stable: start-up continues after the first answer."""
    before = memory_bytes(way.pids())
    for _ in range(IDLE_CHECKS):
        threading.Event().wait(IDLE_EVERY_S)
        now = memory_bytes(way.pids())
        if now == before:
            return
        before = now
