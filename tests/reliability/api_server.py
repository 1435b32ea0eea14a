"""Rows about the API server: outages, wrong answers, refusals, and many changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tests.cluster.credentials import NODE_PROXIER, token_of
from tests.cluster.waiting import wait_for
from tests.node.manifests import Service

from .api_proxy import Answer, Fault, Request, respond, status
from .api_rig import ApiRig
from .evidence import Evidence, LogLine, Metric, Problem
from .row import Group, Limits

GROUP = Group("API server", is_serial=True)


class LocalApiRig(ApiRig):
    """An API rig with local steering, in which a recreated Service keeps its proxy port."""

    steering = "local"


class StateRig(ApiRig):
    """An API rig whose agent saves its state on disk."""

    @property
    def state(self) -> Path:
        return self._folder / "state" / "state.json.gz"

    def prepare(self) -> None:
        super().prepare()
        self.agent.flags = (*self.agent.flags, f"--state-dir={self.state.parent}")


GONE = respond(410, status(410, "Expired", "too old resource version"))
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/userspace-proxy"
CHANGE = "then a Service is added"
START = "changes take effect only after the API server's own start"
KILLED = Limits(
    failed=0.1,
    slowest_s=1.0,
    other_failed=100,
    other_p99_ms=1000,
    back_s=20.0,
    log_lines=30,
    same_processes=False,
)


def evidence(problem: str) -> list[Evidence]:
    """Return the evidence that shows a problem of the source."""
    return [Metric("source_problems"), Problem(problem), LogLine("cannot read cluster state")]


def settles(rig: ApiRig) -> None:
    """Add and remove a Service, which proves that changes take effect again."""
    rig.add_service()
    rig.remove_service()


@GROUP.row(
    f"the API server is killed and started again; {CHANGE}",
    Limits(back_s=20.0, log_lines=14),
    evidence("Source: "),
    rig=ApiRig,
    not_promised=START,
)
def api_restarted(rig: ApiRig) -> Iterator[None]:
    rig.control_plane.stop_apiserver()
    try:
        yield
    finally:
        rig.control_plane.start_apiserver()
    settles(rig)


@GROUP.row(
    f"the API server is away for 15 s (in place of ten minutes: the wait between two attempts "
    f"grows to at most 10 s); {CHANGE}",
    Limits(back_s=20.0, fault_s=15.0, log_lines=14),
    evidence("cannot reach the API server"),
    rig=ApiRig,
    not_promised=START,
)
def api_gone(rig: ApiRig) -> Iterator[None]:
    yield from api_restarted(rig)


@GROUP.row(
    "the proxy is killed, starts while the API server is away, and finds the saved state on disk",
    replace(KILLED, fault_s=15.0),
    [Metric("source_problems"), Problem("cannot reach the API server"), LogLine("the saved state")],
    rig=StateRig,
    not_promised="connections that are open when all processes are killed are reset",
)
def api_down_at_start(rig: StateRig) -> Iterator[None]:
    wait_for("the state on disk", rig.state.exists, hint=rig.agent.log)
    rig.control_plane.stop_apiserver()
    try:
        rig.agent.kill()
        rig.agent.start_until_ready()
        for service in rig.services():
            rig.wait_until_served(service)
        yield
    finally:
        rig.control_plane.start_apiserver()
    settles(rig)


@GROUP.row(
    "the same without a saved state (`--state-dir=disabled`)",
    replace(KILLED, failed=1.0, slowest_s=6.0, other_failed=1000, other_p99_ms=9000),
    [
        Metric("source_problems"),
        Problem("Services have not been read yet"),
        LogLine("cannot read cluster state"),
    ],
    rig=ApiRig,
    not_promised="without a saved state nothing is served until the API server is back; clients of "
    "the first ten seconds wait, and are reset",
)
def api_down_at_start_stateless(rig: ApiRig) -> Iterator[None]:
    rig.control_plane.stop_apiserver()
    try:
        rig.agent.kill()
        rig.agent.start()
        yield
    finally:
        rig.control_plane.start_apiserver()
    settles(rig)


def answers(fault: Fault) -> Callable[[ApiRig], Iterator[None]]:
    """Return a row's fault: the API server gives these answers; then changes take effect again."""

    def run(rig: ApiRig) -> Iterator[None]:
        rig.proxy.be(fault)
        yield
        rig.proxy.repair()
        settles(rig)

    return run


def after_expiry(answer: Answer) -> Fault:
    """Return a fault: watches get 410, so that the agent lists again, and lists get the answer."""
    return lambda request: GONE if request.is_watch else answer


def all_requests(answer: Answer) -> Fault:
    """Return a fault: every request gets the same answer."""
    return lambda _request: answer


def only_watches(answer: Answer) -> Fault:
    """Return a fault: watches get the given answer, and lists get the server's response."""
    return lambda request: answer if request.is_watch else None


ANSWERS: dict[str, tuple[str, Fault, str]] = {
    "api-500": (
        "the API server answers 500",
        all_requests(respond(500, status(500, "InternalError", "etcd is away"))),
        "etcd is away",
    ),
    "api-503-html": (
        "a load balancer answers 503 with a page of HTML",
        all_requests(respond(503, b"<html>no backend</html>")),
        "HTTP status 503",
    ),
    "api-410": (
        "the API server answers watches and lists with 410 Gone",
        all_requests(GONE),
        "too old resource version",
    ),
    "api-partial": (
        "lists are cut off in the middle of their JSON",
        after_expiry(Answer(passed=900)),
        "cut off",
    ),
    "api-garbage-list": (
        "lists aren't JSON",
        after_expiry(respond(200, b'{"items": [[[[')),
        "invalid response",
    ),
    "api-garbage-watch": (
        "watches begin and aren't JSON",
        only_watches(respond(200, b"\0garbage\n" * 50)),
        "invalid response",
    ),
}
for _name, (_breaks, _fault, _problem) in ANSWERS.items():
    GROUP.row(
        f"{_breaks}; {CHANGE}",
        Limits(back_s=10.0, fault_s=6.0, log_lines=16),
        evidence(_problem),
        name=_name,
        rig=ApiRig,
    )(answers(_fault))


@GROUP.row(
    "open watches and new requests get no answer for 8 s (in place of minutes), and nothing ends",
    Limits(fault_s=8.0),
    [],
    rig=ApiRig,
    not_promised="a silent watch is noticed 150 s after its last bookmark, one that never had a "
    "bookmark after up to 630 s; a request without an answer after 75 s",
)
def api_silent(rig: ApiRig) -> Iterator[None]:
    rig.proxy.stalled()
    yield
    rig.proxy.repair()
    settles(rig)


@GROUP.row(
    f"the token expires, and its file contains a new one 6 s later; {CHANGE}",
    Limits(back_s=10.0, fault_s=6.0, log_lines=14),
    evidence("rejected the credentials"),
    rig=ApiRig,
)
def api_token_rotated(rig: ApiRig) -> Iterator[None]:
    rig.write_kubeconfig("expired")
    began = time.monotonic()
    rig.proxy.be(all_requests(respond(401, status(401, "Unauthorized", "Unauthorized"))))
    wait_for("a request with the old token", lambda: rig.proxy.since(began))
    # From now on, the server itself rejects the token in the file.
    rig.proxy.repair()
    yield
    rig.write_kubeconfig(token_of(NODE_PROXIER))
    settles(rig)


@GROUP.row(
    f"the permissions to read Services, slices and Nodes are revoked, then granted; {CHANGE}",
    Limits(back_s=10.0, fault_s=6.0, log_lines=14),
    evidence("forbidden"),
    rig=ApiRig,
)
def api_forbidden(rig: ApiRig) -> Iterator[None]:
    rig.api.ask("DELETE", BINDING)
    try:
        began = time.monotonic()

        def is_refused() -> bool:
            rig.proxy.break_off()
            return bool(rig.agent.status()["source"]["problems"])

        wait_for("a refusal", is_refused, deadline_s=20)
        assert rig.proxy.since(began)
        yield
    finally:
        rig.control_plane.grant_node_proxier()
    settles(rig)


@GROUP.row(
    "the Service and its slice are deleted and created five times, the slice first",
    Limits(failed=0.6),
    [Metric("sync_rounds")],
    rig=LocalApiRig,
    not_promised="while a Service is deleted, clients are refused",
)
def api_recreated(rig: ApiRig) -> Iterator[None]:
    web = rig.services()[0]
    for _ in range(5):
        rig.remove(web)
        for item in reversed(list(web.objects())):
            rig.put_object(item)
    rig.wait_until_served(web)
    yield


@GROUP.row(
    "changes of slices arrive 5 s before changes of Services: one is added, one is recreated",
    Limits(failed=1.0, fault_s=5.0),
    [],
    rig=LocalApiRig,
    not_promised="a Service without its slice refuses clients",
)
def api_out_of_order(rig: ApiRig) -> Iterator[None]:
    def delays_services(request: Request) -> Answer | None:
        is_late = request.is_watch and request.resource == "services"
        return Answer(is_silent=True) if is_late else None

    rig.proxy.be(delays_services)
    web = rig.services()[0]
    rig.remove(web)
    rig.put(web)
    yield
    rig.proxy.repair()
    settles(rig)
    rig.wait_until_served(web)


SERVICES, ENDPOINTS = 100, 100


@GROUP.row(
    f"{SERVICES} Services with {ENDPOINTS} endpoints each are created while the watch is silent, "
    "then arrive at once",
    Limits(other_p99_ms=500, back_s=5.0, memory_mib=40, log_lines=30, fault_s=5.0),
    [Metric("service_ports")],
    rig=ApiRig,
)
def api_10000_endpoints(rig: ApiRig) -> Iterator[None]:
    services = [
        Service(
            f"many-{number}",
            f"10.96.100.{number}",
            endpoints=[f"10.245.{number}.{host}" for host in range(ENDPOINTS)],
        )
        for number in range(SERVICES)
    ]
    rig.proxy.stalled()
    try:
        rig.create_many(services)
        rig.proxy.repair()
        wanted = {service.name for service in services}
        wait_for("all Services", lambda: wanted <= rig.served_names(), deadline_s=60)
        yield
    finally:
        rig.remove_many()
