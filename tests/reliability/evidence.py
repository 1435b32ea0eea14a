"""Evidence that shows a fault to an operator: a metric, a problem on the page, a log line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from prometheus_client.parser import text_string_to_metric_families

from tests.node.agents import HEALTH, Agent
from tests.node.clients import http_get

LIVENESS_S = 1.0


class Observed(Protocol):
    """The sources of evidence: the proxy's metrics, status and log."""

    agent: Agent

    def log_lines(self) -> list[str]:
        """Return the log lines since the fault began."""


class Evidence(Protocol):
    """One sign of a fault that an operator can see."""

    def read(self, observed: Observed) -> object:
        """Return the value before the fault, which :meth:`find` requires."""

    def find(self, observed: Observed, before: object) -> str:
        """Return the text for the table; empty if the fault doesn't show here."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A change of a metric: of its sum over all series with these labels.

    Args:
        name: The name without the prefix ``userspace_proxy_``; or ``process_…``.
        labels: Some of the labels.
    """

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    def read(self, observed: Observed) -> float:
        return read_metric(observed.agent, self.name, dict(self.labels))

    def find(self, observed: Observed, before: object) -> str:
        assert isinstance(before, float)
        now = self.read(observed)
        return f"metric `{self.name}` {before:g} → {now:g}" if now != before else ""

    def __str__(self) -> str:
        return f"a change of the metric {self.name}"


@dataclass(frozen=True, slots=True)
class Slower:
    """A histogram in which more observations exceed one of its bounds, in seconds."""

    name: str
    bound: str
    labels: tuple[tuple[str, str], ...] = ()

    def read(self, observed: Observed) -> float:
        labels = dict(self.labels)
        within = read_metric(observed.agent, f"{self.name}_bucket", labels | {"le": self.bound})
        return read_metric(observed.agent, f"{self.name}_count", labels) - within

    def find(self, observed: Observed, before: object) -> str:
        assert isinstance(before, float)
        now = self.read(observed)
        what = f"`{self.name}` above {self.bound} s"
        return f"metric {what} {before:g} → {now:g}" if now > before else ""

    def __str__(self) -> str:
        return f"observations of {self.name} above {self.bound} s"


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with this text, on the page and in ``/api/v1/status``."""

    text: str

    def read(self, observed: Observed) -> None:
        pass

    def find(self, observed: Observed, before: object) -> str:
        problems = [problem["what"] for problem in observed.agent.status()["problems"]]
        found = [what for what in problems if self.text in what]
        return f"problem “{found[0]}”" if found else ""

    def __str__(self) -> str:
        return f"a problem with the text {self.text!r}"


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log line, written since the fault began, with this text."""

    text: str

    def read(self, observed: Observed) -> None:
        pass

    def find(self, observed: Observed, before: object) -> str:
        return f"log “{self.text}”" if any(self.text in one for one in observed.log_lines()) else ""

    def __str__(self) -> str:
        return f"a log line with the text {self.text!r}"


@dataclass(frozen=True, slots=True)
class NoLiveness:
    """A sign that ``/livez`` doesn't answer, so that a kubelet would restart the container."""

    def read(self, observed: Observed) -> None:
        pass

    def find(self, observed: Observed, before: object) -> str:
        with observed.agent.loopback_socket() as sock:
            sock.settimeout(LIVENESS_S)
            try:
                http_get(sock, ("127.0.0.1", HEALTH), "/livez")
            except OSError as exc:
                return f"`/livez` gives no answer ({type(exc).__name__})"
        return ""

    def __str__(self) -> str:
        return "/livez without an answer"


def read_metric(agent: Agent, name: str, labels: dict[str, str]) -> float:
    """Return the sum of a metric over all series with these labels; 0 if there are none."""
    wanted = name if name.startswith("process_") else f"userspace_proxy_{name}"
    samples = [
        sample.value
        for family in text_string_to_metric_families(agent.read("/metrics")[1])
        for sample in family.samples
        if sample.name in (wanted, f"{wanted}_total") and labels.items() <= sample.labels.items()
    ]
    # The parser may return integers, too.
    return float(sum(samples))
