"""Checks where users see a cause: on the page, in the JSON, in ``explain`` and in the metric.

Each observer returns whether its output has the cause's code or, without codes, the sentence.
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, assert_never
from urllib.parse import quote

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.broken_services import NAMESPACE, Case, Shown
from userspace_proxy.causes.cause import CauseCode

_PREFIX = "userspace_proxy_"
_MARKUP = re.compile(r"<(script|style).*?</\1>|<[^>]*>", re.DOTALL)
EXPLAIN = (sys.executable, "-m", "userspace_proxy", "explain")


@dataclass(frozen=True)
class Expected:
    """The cause that should be shown."""

    service: str
    """A Service of the namespace ``broken``."""
    code: CauseCode
    sentence: str
    shown: Shown
    is_problem: bool = True


FIREWALL = Expected("labels", CauseCode.FIREWALL_DROPS, "drops packets", Shown.NODE)


def in_json(agent: Agent, expected: Expected) -> bool:
    """Return whether the JSON has the cause in the right place, with its sentence."""
    status = agent.status()
    match expected.shown:
        case Shown.PORT:
            found = [
                cause
                for port in status["ports"]
                if (port["namespace"], port["service"]) == (NAMESPACE, expected.service)
                for cause in port["state"]["causes"]
            ]
        case Shown.IGNORED:
            name = f"{NAMESPACE}/{expected.service}"
            found = [item["cause"] for item in status["ignored"] if item["service"] == name]
        case Shown.NODE:
            found = [{"code": p["code"], "sentence": p["what"]} for p in status["problems"]]
        case _:
            assert_never(expected.shown)
    return any(
        cause["code"] == expected.code and expected.sentence in cause["sentence"] for cause in found
    )


def on_page(agent: Agent, expected: Expected) -> bool:
    """Return whether the page, filtered by the Service, has the sentence."""
    search = "" if expected.shown is Shown.NODE else f"?q={quote(expected.service)}"
    return expected.sentence in _plain(agent.read(f"/{search}")[1])


def in_explain(agent: Agent, expected: Expected) -> bool:
    """Return whether ``explain`` prints the sentence."""
    done = agent.run(command=[*EXPLAIN, f"{NAMESPACE}/{expected.service}"])
    return expected.sentence in " ".join(done.stdout.split())


def in_metric(agent: Agent, expected: Expected) -> bool:
    """Return whether a metric has the code for the Service or the node."""
    label, wanted = "reason", {"namespace": NAMESPACE, "service": expected.service}
    match expected.shown, expected.is_problem:
        case Shown.NODE, _:
            name, wanted = "node_problem", {}
        case _, True:
            name = "service_port_problem"
        case Shown.IGNORED, False:
            name = "service_ignored"
        case _:
            name, label = "packets_denied_total", "cause"
    wanted[label] = str(expected.code)
    return any(
        wanted.items() <= labels.items() and float(value) > 0
        for labels, value in _samples(agent.read("/metrics")[1], _PREFIX + name)
    )


OBSERVERS: Mapping[str, Callable[[Agent, Expected], bool]] = {
    "JSON": in_json,
    "page": on_page,
    "explain": in_explain,
    "metric": in_metric,
}


def check(agent: Agent, expected: Expected) -> None:
    """Wait until the JSON has the cause, and then until each observer finds it."""
    wait_for(
        f"{expected.code} in the JSON",
        lambda: in_json(agent, expected),
        hint=lambda: dump(agent, expected),
    )
    for name, names in OBSERVERS.items():
        # The page may be up to a third of a second old.
        wait_for(f"{expected.code} in {name}", lambda names=names: names(agent, expected))


def expected_of(case: Case, ip: str) -> Expected:
    """Return the expected cause of a case whose endpoint has this address."""
    sentence = case.sentence.format(ip=ip)
    return Expected(case.name, case.code, sentence, case.shown, case.is_problem)


def _plain(page: str) -> str:
    return " ".join(html.unescape(_MARKUP.sub(" ", page)).split())


def _samples(page: str, name: str) -> list[tuple[dict[str, Any], str]]:
    """Return the samples of one metric, as labels and value."""
    lines = re.findall(rf"^{name}\{{(.*)\}} (\S+)$", page, re.MULTILINE)
    return [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), value) for labels, value in lines]


def dump(agent: Agent, expected: Expected) -> str:
    """Return the JSON about the cause, for a failed test's message."""
    status = agent.status()
    ports = [p["state"] for p in status["ports"] if p["service"] == expected.service]
    ignored = [i for i in status["ignored"] if i["service"].endswith(f"/{expected.service}")]
    return json.dumps([ports, ignored, status["problems"]], indent=1)
