"""Defines the goals, as ratios to a peer in the same run, and judges whether they are met."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from .metrics import METRICS
from .samples import Samples

TOLERANCE = 0.05
"""The difference by which a ratio may miss its bound: the ratios of two runs differ as much."""

_CONNECTING = (
    "HAProxy's whole cost is little more than the kernel's part of this proxy's; the interpreter "
    "runs some sixty short calls for a connection, a third of the proxy's CPU (ADR 0064)"
)
_REQUESTING = (
    "a request takes four system calls, the minimum, and most of its CPU is the kernel's `sendto`, "
    "which costs peers the same; the interpreter takes some 2 µs"
)
_DATAGRAMS = (
    "the two sends, the kernel's work, take two thirds of an exchange's CPU and cost both proxies "
    "the same; while nothing preempts it, this proxy is level with the Go proxy, but on two shared "
    "cores its only thread is preempted more often (ADR 0048)"
)
_STREAMS = (
    "both proxies splice through pipes of the same size, and the kernel does the work; while "
    "nothing preempts it, this proxy reaches 0.98 with eight streams and 0.92 with one, which "
    "wakes it twice as often; on two shared cores it is preempted more often, too (ADR 0048)"
)
_IN_THE_KERNEL = (
    "both translate the first packet of a connection by look-ups in maps, and the others by "
    "connection tracking; the agent itself takes less than 1 % of a core; rounds differ by more"
)
_TRACKED = (
    "the node's kernel still tracks connections that hooks have translated, because of the rules "
    "beneath: there, a client that dials a pod itself has 1.10 of kube-proxy's rate (ADR 0097)"
)
_CLIENT_ADDRESS = (
    "three more calls, the table that finds replies, routing rules, and bound ports in the kernel, "
    "each 1 to 3 µs of a connection; nearly nothing for later packets (ADR 0057)"
)
_SAME_ADDRESS = (
    "the client's address costs HAProxy 5 to 13 % of a connection and this proxy as much, so the "
    "interpreter's third of the CPU remains (ADR 0064)"
)
_LATENCY = (
    "at this rate proxy, client and pods keep more than one of the two shared cores busy, so a "
    "packet often waits for one of the others, as with all proxies (p99 of 0.8 to 6.9 ms at half "
    "of the slowest proxy's rate); at 17,500 requests/s the proxy added 51 µs to the p50"
)
_UNEXPLAINED = "not explained yet"
_WHY_OF_PEER = {"ours-node": _CLIENT_ADDRESS, "haproxy-client": _SAME_ADDRESS}
_WHY_OF_WAY = {"ours-kernel": _IN_THE_KERNEL, "ours-sockets": _TRACKED}
_WHY = {
    "close": _CONNECTING,
    "echo": _CONNECTING,
    "keepalive": _REQUESTING,
    "bulk1": _STREAMS,
    "bulk8": _STREAMS,
    "udp1": _DATAGRAMS,
    "udp16": _DATAGRAMS,
    "open-ours": _LATENCY,
}


@dataclass(frozen=True, slots=True)
class Goal:
    """One promised figure.

    Args:
        what: The name of the compared figure.
        load: The load.
        metric: The metric whose medians over rounds are compared.
        way: The way that must meet the goal.
        to: The way by whose value the value is divided; None to judge the value itself.
        bound: The value to reach.
        at_most: Whether lower values are better.
        slack: The difference by which the value may miss the bound.
    """

    what: str
    load: str
    metric: str
    way: str
    to: str | None
    bound: float
    at_most: bool = False
    slack: float = TOLERANCE
    added: bool = False
    """Whether the value of ``to`` is subtracted, instead of dividing by it."""


def why(goal: Goal) -> str:
    """Return why a goal isn't met, as profiles have shown, or that the reason is unknown."""
    return (
        _WHY_OF_PEER.get(goal.to or "")
        or _WHY_OF_WAY.get(goal.way)
        or _WHY.get(goal.load, _UNEXPLAINED)
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal and the measured value, which is None if the goal wasn't measured."""

    goal: Goal
    value: float | None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None if it wasn't measured."""
        if self.value is None:
            return None
        if self.goal.at_most:
            return self.value <= self.goal.bound + self.goal.slack
        return self.value >= self.goal.bound - self.goal.slack


_CONNECTS = (("close", "connections"), ("echo", "connections"))
_REQUESTS = (("keepalive", "requests"),)
_BULKS = (("bulk1", "gbits"), ("bulk8", "gbits"))
_UDP = (("udp1", "exchanges"), ("udp16", "exchanges"))
_RATES = (*_CONNECTS, *_REQUESTS, *_BULKS, *_UDP)


def _against_go(
    way: str,
    *,
    connects: float,
    requests: float,
    bulk: float,
    udp: float,
    strict: Collection[str] = (),
) -> tuple[Goal, ...]:
    """Return the goals against the Go proxy.

    Args:
        way: The way that must meet the goals.
        connects: The bound of the rate of short connections; the next three bound the other rates.
        strict: Loads whose bulk or UDP rate has no tolerance.
    """
    slack = {load: 0.0 if load in strict else TOLERANCE for load, _ in (*_BULKS, *_UDP)}
    return (
        *(Goal("connections/s", load, m, way, "go", connects) for load, m in _CONNECTS),
        Goal("requests/s", "keepalive", "requests", way, "go", requests),
        Goal("p99", "keepalive", "p99_ms", way, "go", 1.0, at_most=True),
        *(Goal("Gbit/s", load, m, way, "go", bulk, slack=slack[load]) for load, m in _BULKS),
        *(Goal("CPU", load, "cpu_us", way, "go", 0.8, at_most=True) for load, _ in _CONNECTS),
        *(Goal("CPU", load, "cpu_s_per_gb", way, "go", 0.8, at_most=True) for load, _ in _BULKS),
        *(Goal("exchanges/s", load, m, way, "go", udp, slack=slack[load]) for load, m in _UDP),
    )


def _against_haproxy() -> Iterator[Goal]:
    """Yield the goals against HAProxy, with its defaults and preserving the client's address."""
    for to, bound, loads in (
        ("haproxy", 1.0, (*_CONNECTS, *_REQUESTS)),
        ("haproxy-client", 1.1, _CONNECTS),
    ):
        for load, metric in loads:
            yield Goal(METRICS[metric].head, load, metric, "ours", to, bound, slack=0.0)
    for load, metric in (*_CONNECTS, *_REQUESTS):
        yield Goal(METRICS[metric].head, load, metric, "ours-local", "haproxy", 1.0)
    for load, metric in _BULKS:
        yield Goal(METRICS[metric].head, load, metric, "ours", "haproxy", 1.3)


def _of_client_address() -> Iterator[Goal]:
    """Yield the goals for the cost of preserving the client's address instead of the node's."""
    for load, _ in (*_CONNECTS, *_REQUESTS):
        yield Goal(
            "the machine's CPU",
            load,
            "machine_us",
            "ours",
            "ours-node",
            1.02,
            at_most=True,
            slack=0.0,
        )


def _against_kube_proxy() -> Iterator[Goal]:
    """Yield the goals of the kernel path: within 3 % of kube-proxy, which does the same work.

    With hooks the bounds are stricter, because packets needn't be translated.
    """
    to = "kube-proxy"
    for load, metric in _RATES:
        way, cpu = "ours-kernel", "the machine's CPU"
        yield Goal(METRICS[metric].head, load, metric, way, to, 0.97, slack=0.0)
        machine = "machine_s_per_gb" if metric == "gbits" else "machine_us"
        yield Goal(cpu, load, machine, way, to, 1.03, at_most=True, slack=0.0)
    way = "ours-sockets"
    for bound, loads in ((1.1, _CONNECTS), (1.05, _REQUESTS), (1.0, _BULKS)):
        for load, metric in loads:
            yield Goal(METRICS[metric].head, load, metric, way, to, bound, slack=0.0)
    for load, _ in _CONNECTS:
        yield Goal(cpu, load, "machine_us", way, to, 0.9, at_most=True, slack=0.0)


GOALS = (
    *_against_go(
        "ours", connects=1.15, requests=1.15, bulk=1.0, udp=1.05, strict=("bulk8", "udp16")
    ),
    # Memory doesn't differ between runs, so there is no tolerance.
    *(
        Goal("bytes of user memory each", load, "bytes_each", "ours", None, 3000, True, slack=0.0)
        for load in ("held2000", "held8000")
    ),
    *_against_kube_proxy(),
    *(Goal("connections/s", load, m, "ours-local", "ours", 1.1) for load, m in _CONNECTS),
    Goal("requests/s", "keepalive", "requests", "ours-local", "ours", 1.1),
    Goal("share of its own rate that is kept", "silent", "share", "ours", None, 0.9),
    *_against_haproxy(),
    *_of_client_address(),
    *(
        Goal("added " + METRICS[m].head, "open-ours", m, "ours", "direct", us, True, 0.0, True)
        for m, us in (("p50_us", 60.0), ("p99_us", 150.0))
    ),
)


def judge(samples: Samples, goals: Sequence[Goal] = GOALS) -> list[Verdict]:
    """Return a verdict on each goal that was measured."""
    verdicts = (Verdict(goal, _value(goal, samples)) for goal in goals)
    return [verdict for verdict in verdicts if verdict.value is not None]


def _value(goal: Goal, samples: Samples) -> float | None:
    if goal.to is None:
        return samples.median(goal.load, goal.way, goal.metric)
    if goal.added:
        return samples.added(goal.load, goal.metric, goal.way, goal.to)
    return samples.ratio(goal.load, goal.metric, goal.way, goal.to)
