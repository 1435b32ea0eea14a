"""Builds a healthy cluster, and one with an unhealthy endpoint, path and node."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import msgspec

from tests.port_keys import port_key
from tests.unit.status.views import NOW, make_endpoint, make_frontend, make_port, make_view, replace
from userspace_proxy.causes.cause import Cause, CauseCode, as_read
from userspace_proxy.causes.endpoints import refuses, silent
from userspace_proxy.diagnosis.judge import diagnose
from userspace_proxy.facts import Level, PortFacts, Problem, StatusFacts, Times, TotalsFacts
from userspace_proxy.facts.connection import port_fields
from userspace_proxy.facts.edges import EdgeFacts, EdgesFacts
from userspace_proxy.facts.encoding import encode_answer, read_answer
from userspace_proxy.status.answers import render_status
from userspace_proxy.status.markup import Parts
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer, AllNodes
from userspace_proxy_kubectl.nodes.dashboard.client_calls import AllCalls, add_up
from userspace_proxy_kubectl.nodes.dashboard.live import Live
from userspace_proxy_kubectl.nodes.dashboard.look import ClusterLook
from userspace_proxy_kubectl.nodes.merged import merge
from userspace_proxy_kubectl.port_forward import ForwardTarget

WEB_1, WEB_3 = "10.244.1.8:8080", "10.244.3.9:8080"
CART = "10.244.2.5:8080"
SEARCH = ("10.244.1.7:9200", "10.244.2.7:9200", "10.244.3.7:9200")
_TIMES = Times((0.001, 0.005, 0.1), (90, 9, 1, 0), 0.2)
TOTALS = TotalsFacts(
    active=31, connections=4_200, saved=9, failures=36, received_bytes=7_000_000, sent_bytes=9**9
)
_SEEN = {"count": 12, "first_at": NOW - 900, "last_at": NOW - 2}


def an_endpoint(address: str, cause: Cause | None = None):
    """Return an endpoint that serves, or that fails with a cause."""
    node = f"node-{address.split('.')[2]}"
    if cause is not None:
        return make_endpoint(address, node=node, failures=12, cause=cause.replace(**_SEEN))
    answered = {"answered_at": NOW - 1, "sent_at": NOW - 1, "sent_bytes": 9_000}
    return make_endpoint(address, node=node, connections=420, active=3, **answered)


def a_port(name: str, *endpoints: object, **changes: object) -> PortFacts:
    """Return a Service port with these endpoints."""
    number = 10 + sum(map(ord, name)) % 200
    frontends = (make_frontend(f"10.96.0.{number}:80", "ClusterIP", "proxy port 20001"),)
    return make_port(
        name, endpoints=endpoints, frontends=frontends, connect_times=_TIMES, **changes
    )


def ports_of(node: str) -> Sequence[PortFacts]:
    """Return the Service ports of a node in the unhealthy cluster."""
    is_lost = node == "node-3"
    web = [an_endpoint(WEB_1), an_endpoint(WEB_3, refuses(WEB_3))]
    cart = [an_endpoint(CART, silent(CART) if node == "node-2" else None)]
    search = [an_endpoint(one, silent(one) if is_lost else None) for one in SEARCH]
    quiet = a_port("quiet", make_endpoint("10.244.1.4:80", node="node-1"), connections=0, active=0)
    return a_port("web", *web), a_port("cart", *cart), a_port("search", *search), quiet


def an_answer(node: str, ports: Sequence[PortFacts], **facts: object) -> AgentAnswer:
    """Return a node's answer with these Service ports, decoded from JSON."""
    view = make_view(*ports, **{"node": node, "totals": TOTALS, **facts})
    view.ports = diagnose(view.ports, view.source, view.health_checks)
    return AgentAnswer(
        node,
        (ForwardTarget("kube-system", f"userspace-proxy-{node}", 10249),),
        read(view),
        asked_at=NOW - 0.2,
        answered_at=NOW - 0.1,
    )


def read(view: StatusFacts) -> StatusFacts:
    """Encode a node's facts as its agent does, and return them decoded."""
    return read_answer(render_status(view, now=NOW))


def a_silent_node(node: str) -> AgentAnswer:
    """Return the answer of an unresponsive node."""
    agents = (ForwardTarget("kube-system", f"userspace-proxy-{node}", 10249),)
    why = as_read(CauseCode.SOURCE_AWAY, "the agent has not answered within 5 s")
    return AgentAnswer(node, agents, problem=why)


def sick_cluster() -> AllNodes:
    """Return four nodes: one unresponsive, three with unhealthy endpoints."""
    answers = [an_answer(node, ports_of(node)) for node in ("node-1", "node-2", "node-3")]
    return AllNodes((*answers, a_silent_node("node-4")))


def calm_cluster(nodes: int = 3, services: int = 3) -> AllNodes:
    """Return nodes without problems."""
    ports = [
        a_port(f"calm-{number}", an_endpoint("10.244.1.8:80"), an_endpoint("10.244.2.8:80"))
        for number in range(services)
    ]
    first = an_answer("node-1", ports)
    assert first.status is not None
    return AllNodes(
        tuple(
            AgentAnswer(f"node-{n}", first.agents, replace_node(first.status, f"node-{n}"))
            for n in range(1, nodes + 1)
        )
    )


def replace_node(status: StatusFacts, node: str) -> StatusFacts:
    """Return the same facts for another node."""
    return replace(status, node=node)


def look_at(all_nodes: AllNodes, cluster: str = "prod") -> ClusterLook:
    """Return the data from which pages are rendered."""
    return ClusterLook(all_nodes, merge(all_nodes), NOW, cluster)


def edges(*rows: tuple[str, str, str, int], others: int = 0) -> bytes:
    """Return JSON about edges, each a client's address and pod, a Service port, and a count."""
    facts = EdgesFacts(
        edges=tuple(
            EdgeFacts(
                client=client,
                client_pod=pod,
                connections=n,
                last_at=NOW,
                **port_fields(port_key(service)),
            )
            for client, pod, service, n in rows
        ),
        others=others,
    )
    return encode_answer(facts)


CALLS = {
    "node-1": edges(
        ("10.244.1.20", "shop/front-5d9", "shop/web:http", 900),
        ("10.244.1.21", "", "shop/cart:http", 40),
        ("10.244.1.20", "shop/front-5d9", "shop/search:http", 12),
    ),
    "node-2": edges(
        ("10.244.2.20", "shop/front-77c", "shop/web:http", 700),
        ("192.0.2.44", "", "shop/web:http", 5),
        others=3,
    ),
    "node-3": edges(("10.244.3.20", "shop/jobs-1", "shop/search:http", 66)),
}


def live_of(all_nodes: AllNodes, calls: Mapping[str, bytes] = CALLS) -> Live:
    """Return the live data from which the pages about these nodes are rendered."""

    async def ask(path: str, nodes: Sequence[str]) -> Mapping[str, bytes | Cause]:
        assert path.startswith("/api/v1/connections")
        return {node: calls[node] for node in nodes if node in calls}

    return Live(lambda: all_nodes, ask, cluster="prod", unix=lambda: NOW)


def calls_of(answers: Mapping[str, bytes]) -> AllCalls:
    """Return the calls in these nodes' responses, added up by client and Service port."""
    return add_up({n: msgspec.json.decode(b, type=EdgesFacts) for n, b in answers.items()})


def all_calls() -> AllCalls:
    """Return the calls in the unhealthy cluster."""
    return calls_of(CALLS)


def summaries_of(all_nodes: AllNodes) -> AllNodes:
    """Return these nodes with summaries instead of complete responses, as in large clusters."""
    return dataclasses.replace(all_nodes, answers=tuple(map(_summary, all_nodes.answers)))


def _summary(answer: AgentAnswer) -> AgentAnswer:
    if answer.status is None:
        return answer
    ports = [port for port in answer.status.ports if port.state.level is not Level.OK]
    served = len(answer.status.ports) - len(ports)
    status = msgspec.structs.replace(answer.status, ports=ports, served=served)
    return dataclasses.replace(answer, status=status, is_summary=True)


HOSTILE = "<b>\u202e\x1b[31m'\"/../&"


def hostile_cluster() -> AllNodes:
    """Return the unhealthy cluster plus a node whose agent sends markup in its texts."""
    replace = msgspec.structs.replace
    answer = an_answer(HOSTILE, ports_of("node-2"))
    status = answer.status
    assert status is not None
    ports = [
        replace(
            port,
            **dict.fromkeys(("namespace", "service", "port", "family", "protocol"), HOSTILE),
            side=HOSTILE,
            frontends=[replace(one, address=HOSTILE, kind=HOSTILE) for one in port.frontends],
            endpoints=[
                replace(one, address=f"{HOSTILE}{n}", node=HOSTILE, state=HOSTILE, host=HOSTILE)
                for n, one in enumerate(port.endpoints)
            ],
            state=replace(
                port.state,
                sentence=HOSTILE,
                causes=[as_read(CauseCode.ENDPOINT_SILENT, HOSTILE, HOSTILE, HOSTILE)],
            ),
        )
        for port in status.ports
    ]
    texts = dict.fromkeys(("version", "commit", "node", "verdict"), HOSTILE)
    status = replace(
        status,
        **texts,
        ports=ports,
        problems=[Problem(Level.TROUBLE, HOSTILE, HOSTILE)],
        settings={HOSTILE: HOSTILE},
        source=replace(status.source, kind=HOSTILE, location=HOSTILE),
        steering=replace(status.steering, name=HOSTILE),
    )
    return AllNodes((*sick_cluster().answers, dataclasses.replace(answer, status=status)))


def shown(parts: Parts) -> str:
    """Return the markup of a page's parts."""
    return "\n".join((parts.title, *parts.html.values()))
