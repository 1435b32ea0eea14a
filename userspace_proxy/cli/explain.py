"""Runs ``userspace-proxy explain``, which follows the path of connections to one Service.

--manifests ───────▶ plan ──────────┐
--kubeconfig ──────▶ plan, nodes ───┼──▶ steps ──▶ one sentence, next command
admin address ──────────────────────┘
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ..clocks import Clocks
from ..errors import ConfigError, SourceError, UserspaceProxyError
from ..model import ServiceKey, SocketAddress
from .admin import find_admin
from .all_nodes import means_all_nodes, node_flags
from .command import DONE, NEEDS_ATTENTION, Given
from .kubeconfig import find, flags_of
from .plugin_commands import NotInstalled, find_for_all_nodes
from .program_start import ProgramStart
from .service_argument import NoSuchService, ServiceArguments, first_found
from .status import JSON
from .terminal import columns_of, write

if TYPE_CHECKING:
    from ..config import Settings
    from ..explain import Explanation, Invocation, PathStep, Subject
    from ..explain.dial import Dials
    from ..facts import PortFacts, StatusFacts

# The maximum number of dialled endpoints: dialling more takes longer than a user waits.
DIALLED_MAX = 64
# The time limit for the API server, which answers the three or four requests in 0.1 s if healthy.
_SERVER_S = 15.0


class NodesAnswer(Protocol):
    """The answers of all nodes' agents about one Service."""

    @property
    def subject(self) -> Subject | None:
        """The facts of the requested node; None for all nodes, or if it didn't answer."""

    @property
    def worst(self) -> Subject | None:
        """The facts of a node with the worst state; None if no node answered."""

    def settings(self, name: str) -> Mapping[str, object]:
        """Return an agent's settings, preferably of an agent with this ``service-proxy-name``."""

    def added_to(
        self, explanation: Explanation, planned: Sequence[PortFacts] | None, invocation: Invocation
    ) -> Explanation:
        """Return the explanation with the nodes' answers added.

        Args:
            planned: The Service ports as planned from the API server; None if they can't be read.
        """

    def with_json(self, text: str) -> str:
        """Return the JSON of an explanation with the nodes' answers added."""


@dataclass(frozen=True, slots=True)
class _Found:
    """The facts found about the Service."""

    subject: Subject
    asked: tuple[str, ...] = ()
    """The flags that name the source, and flags of ``run`` that affect its plan."""
    pods: tuple[PathStep, ...] | None = None
    slices: Sequence[PathStep] = ()
    planned: Sequence[PortFacts] | None = None
    """The Service ports as planned from the API server; None if it wasn't queried."""
    name: str = ""
    """The value of the Service's label ``service-proxy-name`` in the API server."""
    plan: Callable[[Settings], Subject] | None = None
    """Plans the API server's objects for a proxy with given settings; None without objects."""
    on_nodes: NodesAnswer | None = None
    """The answers of a cluster's agents; None if no agents were queried."""
    is_elsewhere: bool = False
    """Whether the explanation is about another node."""


def explain(given: Given) -> int:
    """Print the steps; return the exit status, 3 if clients aren't served properly.

    Raises:
        UserspaceProxyError: The Service doesn't exist, or the source can't be read.
    """
    from .. import explain as explaining
    from ..config.load import load_settings
    from ..explain.dial import find_way

    client = _client(given.values.get("from", ""))
    wants_dials = given.is_on("probe")
    settings = load_settings(given.settings).settings
    reads_cluster = means_all_nodes(given, settings)
    arguments = ServiceArguments(given, settings, reads_cluster=reads_cluster)
    names = arguments.names(given.arguments[0])
    found = _find_first(given, settings, names)
    # Don't dial for another node, about which dials from this machine would prove nothing.
    way = None if found.is_elsewhere else find_way(found.subject.node)
    dials = _dial(found.subject, way) if wants_dials and way is not None else None
    invocation = explaining.Invocation(
        program=ProgramStart().program,
        source=found.asked,
        others=(f"--from={client}",) if client else (),
        is_elsewhere=way != (),
        can_dial=(dials if wants_dials else way) is not None,
        has_pods=found.pods is not None,
    )
    explanation = explaining.explain(
        found.subject,
        client=client,
        dials=(dials or {}) if wants_dials else None,
        pods=(*(found.pods or ()), *found.slices),
        invocation=invocation,
    )
    if found.on_nodes is not None:
        explanation = found.on_nodes.added_to(explanation, found.planned, invocation)
    if given.values.get("output") == "json":
        text = explaining.render_json(explanation)
        sys.stdout.write(text if found.on_nodes is None else found.on_nodes.with_json(text))
    else:
        write(sys.stdout, explaining.render_text(explanation, columns=columns_of(sys.stdout)))
    return DONE if explanation.level == "ok" else NEEDS_ATTENTION


def _client(text: str) -> str:
    from ..config.flags import parsed
    from ..config.values import parse_address

    return str(parsed("from", text, parse_address)) if text else ""


def _find_first(given: Given, settings: Settings, names: Sequence[str]) -> _Found:
    """Return the first existing Service: its plan with the nodes' answers, or only the answers."""
    asks_nodes = (
        settings.origins.get("manifests") != "flag" or given.is_on("pods")
    ) and means_all_nodes(given, settings)
    try:
        service, found = first_found(names, lambda name: _find(given, settings, name))
    except SourceError as exc:
        # Explain a node's facts instead of a plan: a user with access to the agents may lack
        # permission to read Services.
        on_nodes = _ask_nodes(given, settings, names[0], instead=exc) if asks_nodes else None
        subject = None if on_nodes is None else on_nodes.subject or on_nodes.worst
        if on_nodes is None or subject is None or not subject.ports:
            raise
        found = _as_given(_Found(subject, _cluster_flags(given, settings)), given)
        return _on_nodes(found, on_nodes, subject, given)
    named = replace(settings, service_proxy_name=found.name)
    on_nodes = _ask_nodes(given, named, service) if asks_nodes else None
    if on_nodes is None:
        return found
    if found.plan is not None:
        subject = found.plan(settings.beside(on_nodes.settings(found.name)))
        found = replace(found, subject=subject, planned=subject.ports)
    return _on_nodes(found, on_nodes, on_nodes.subject, given)


def _ask_nodes(
    given: Given, settings: Settings, service: str, *, instead: UserspaceProxyError | None = None
) -> NodesAnswer | None:
    """Return the nodes' answers about a Service; None if they can't be read.

    Args:
        instead: Why there is no plan, to be reported if nodes answer; None if there is a plan.
    """
    from ..model.quoting import printable

    try:
        ask: Callable[..., NodesAnswer | None] = find_for_all_nodes("explain")
    except NotInstalled as exc:
        if node_flags(given, of_nodes=True):
            raise
        if instead is None:
            what = f"no node is asked, so this is planned from the API server: {exc}"
            print(f"warning: {printable(what)}", file=sys.stderr)
        return None
    return ask(given, settings, service, instead=instead)


def _on_nodes(
    found: _Found, on_nodes: NodesAnswer, subject: Subject | None, given: Given
) -> _Found:
    """Add the nodes' answers to the facts.

    Args:
        subject: The facts of one node to explain; None to explain the plan.
    """
    return replace(
        found,
        subject=subject or found.subject,
        asked=(*found.asked, *node_flags(given, of_nodes=subject is not None)),
        on_nodes=on_nodes,
        is_elsewhere=subject is not None,
    )


def _find(given: Given, settings: Settings, service: str) -> _Found:
    """Read the Service from the source that the flags name: a proxy, manifests or an API server."""
    from ..explain import read_subject
    from ..facts.encoding import read_answer

    flags = {name for name, origin in settings.origins.items() if origin == "flag"}
    if "server" not in given.values:
        if "manifests" in flags and not given.is_on("pods"):
            return _as_given(_in_manifests(settings, service), given)
        if means_all_nodes(given, settings):
            return _as_given(_in_cluster(given, settings, service), given)
    if given.is_on("pods"):
        raise ConfigError("--pods needs --kubeconfig, and no --server")
    admin = find_admin(given)
    body = admin.get("/api/v1/status", accept=JSON, service=service).body
    status = read_answer(body)
    subject = read_subject(status, service, f"the proxy at {admin}", is_live=True)
    return _Found(subject, (f"--server={admin}",) if "server" in given.values else ())


def _as_given(found: _Found, given: Given) -> _Found:
    """Return a plan's facts, with all given flags of ``run`` for the suggested commands."""
    left_out = {"--manifests", "--kubeconfig", "--master", *map(_name, found.asked)}
    others = (flag for flag in given.settings if _name(flag) not in left_out)
    return replace(found, asked=(*found.asked, *others))


def _name(flag: str) -> str:
    return flag.partition("=")[0]


def _in_manifests(settings: Settings, service: str) -> _Found:
    from ..cluster.from_names import before_lookups
    from ..explain.planned import plan_status
    from ..model.quoting import printable
    from ..policy import PolicyOptions
    from ..sources.manifests import load_state

    # Allow endpoints at nodes' addresses, because authors of manifests are trusted to send clients
    # to any address that this node reaches.
    options = replace(
        settings.as_options(PolicyOptions), node_name=settings.node_name, allow_node_endpoints=True
    )
    state = load_state(
        settings.manifests,
        node_name=options.node_name,
        service_cidrs=settings.service_cluster_ip_range,
    )
    for problem in state.problems:
        print(f"warning: {printable(str(problem))}", file=sys.stderr)
    snapshot = before_lookups(state.snapshot, settings.allow_endpoint_names)
    plan = partial(
        plan_status,
        snapshot,
        options,
        now=Clocks.time(),
        rejected=state.rejected,
        problems=state.problems,
    )
    # Ordinary users usually test manifests without steering, so plan without it by default.
    is_open = settings.steering == "auto"
    status = plan(steering="none" if is_open else settings.steering)
    subject = _planned(status, service, settings.manifests)
    if is_open:
        on_node = plan(steering="auto").only(service).ports
        subject = replace(subject, on_node=on_node)
    return _Found(subject, (f"--manifests={settings.manifests}",))


def _in_cluster(given: Given, settings: Settings, service: str) -> _Found:
    from ..cluster.from_names import before_lookups
    from ..explain.planned import plan_status
    from ..explain.pods import foreign_slices, judge_pods
    from ..policy import PolicyOptions
    from ..sources.kubernetes.one_service import OneServiceReader
    from .running import run

    kubeconfig, with_pods = find(given, settings), given.is_on("pods")
    # Don't default to this machine's name, because it needn't be a node.
    node = settings.hostname_override
    reader = OneServiceReader(kubeconfig=kubeconfig or "", master=settings.master, node_name=node)
    key = ServiceKey(*service.partition(":")[0].split("/", 1))
    one = run(reader.read(key, with_pods=with_pods, within_s=_SERVER_S))
    now = Clocks.time()

    def plan(theirs: Settings) -> Subject:
        options = replace(theirs.as_options(PolicyOptions), node_name=node)
        snapshot = before_lookups(one.snapshot, theirs.allow_endpoint_names)
        status = plan_status(snapshot, options, now=now, steering=theirs.steering)
        return _planned(status, service, one.url)

    subject, pods = plan(settings), None
    state = one.snapshot.services[key]
    if with_pods:
        pods = tuple(judge_pods(state.service, one.targets, one.pods, state.slices))
    flags, name = _cluster_flags(given, settings), state.service.proxy_name or ""
    slices = foreign_slices(state.service, state.slices, has_pods=with_pods)
    return _Found(subject, flags, pods, slices, planned=subject.ports, name=name, plan=plan)


def _cluster_flags(given: Given, settings: Settings) -> tuple[str, ...]:
    """Return the flags that name the cluster, and the node for which to plan."""
    kubeconfig = find(given, settings)
    flags = {
        **({} if kubeconfig is None else flags_of(kubeconfig)),
        "master": settings.master,
        "hostname-override": settings.hostname_override,
    }
    return tuple(f"--{name}={text}" for name, text in flags.items() if text)


def _planned(status: StatusFacts, service: str, origin: str) -> Subject:
    """Return a plan's facts about a Service, or one of its ports; warn if the Node doesn't exist.

    Raises:
        NoSuchService: The Service doesn't exist, or has no such port.
    """
    from ..causes.say import say
    from ..explain import read_subject
    from ..model.quoting import printable
    from ..status.missing import say_missing

    if status.no_node is not None:
        print(f"warning: {printable(say(status.no_node))}", file=sys.stderr)
    subject = read_subject(status, service, origin, is_live=False)
    if not (subject.ports or subject.ignored or subject.rejected):
        raise NoSuchService(say_missing(status, service))
    return subject


def _dial(subject: Subject, way: tuple[str, ...]) -> Dials | None:
    """Return the results of up to DIALLED_MAX dials; None if the node's network can't be entered.

    UDP is omitted, because a dial would have to send data.

    Endpoints that the proxy refuses are also omitted: otherwise, any author of EndpointSlices could
    make this command dial programs on this machine, or the cloud's metadata service.
    """
    from ..answering_child import ChildEnded
    from ..explain.dial import dial_by, with_hosts

    wanted: list[str] = []
    for port in subject.ports:
        if port.protocol != "TCP":
            continue
        if subject.node is not None:
            dialled = (subject.dialled(frontend.address) for frontend in port.frontends)
            wanted += list(filter(None, dialled))[:1]
        wanted += [endpoint.address for endpoint in port.endpoints if not endpoint.is_refused]
    try:
        dials = dial_by(way, map(SocketAddress.read, wanted[:DIALLED_MAX]))
    except (ChildEnded, OSError):
        return None
    return with_hosts(subject.ports, dials)
