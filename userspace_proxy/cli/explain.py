"""``userspace-proxy explain``: follows the path of connections to one Service.

--manifests ───────▶ plan ──┐
--kubeconfig ──────▶ plan ──┼──▶ steps ──▶ one sentence, next command
admin address ──────────────┘
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..clocks import Clocks
from ..errors import ConfigError, UserspaceProxyError
from ..model import ServiceKey, SocketAddress
from .admin import find_admin
from .command import DONE, NEEDS_ATTENTION, Given
from .kubeconfig import find, flags_of, given_choices
from .status import JSON, service_name
from .terminal import columns_of, write

if TYPE_CHECKING:
    from ..config import Settings
    from ..explain import PathStep, Subject
    from ..explain.dial import DialResult
    from ..facts import StatusFacts

# More take longer than anyone waits.
DIALLED_MAX = 64
# A healthy API server answers the three or four requests in a tenth of a second.
_SERVER_S = 15.0
_PLUGIN = "kubectl-"
_MODULE_FILE = "__main__.py"


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known about the Service."""

    subject: Subject
    asked: tuple[str, ...] = ()
    """The flags that named the source, and those of ``run`` that change its plan."""
    pods: tuple[PathStep, ...] | None = None


def explain(given: Given) -> int:
    """Print the steps; return the exit status, 3 if clients aren't served as they should be.

    Raises:
        UserspaceProxyError: There is no such Service, or the source can't be read.
    """
    from .. import explain as explaining
    from ..explain.dial import find_way

    service = service_name(given.arguments[0])
    client = _client(given.values.get("from", ""))
    wants_dials = given.is_on("probe")
    found = _find(given, service)
    way = find_way(found.subject.node)
    dials = _dial(found.subject, way) if wants_dials and way is not None else None
    asked = explaining.Asked(
        program=ProgramStart().program,
        source=found.asked,
        others=(f"--from={client}",) if client else (),
        is_elsewhere=way != (),
        can_dial=(dials if wants_dials else way) is not None,
    )
    explanation = explaining.explain(
        found.subject,
        client=client,
        dials=(dials or {}) if wants_dials else None,
        pods=found.pods,
        asked=asked,
    )
    if given.values.get("output") == "json":
        sys.stdout.write(explaining.render_json(explanation))
    else:
        write(sys.stdout, explaining.render_text(explanation, columns=columns_of(sys.stdout)))
    return DONE if explanation.level == "ok" else NEEDS_ATTENTION


def _client(text: str) -> str:
    from ..config.flags import parsed
    from ..config.values import parse_address

    return str(parsed("from", text, parse_address)) if text else ""


def _find(given: Given, service: str) -> _Found:
    """Read the Service from what the flags name: a proxy, manifests or an API server."""
    from ..config.load import load_settings
    from ..explain import read_subject
    from ..status.answers import read_answer

    settings = load_settings(given.settings).settings
    flags = {name for name, origin in settings.origins.items() if origin == "flag"}
    if "server" not in given.values:
        if "manifests" in flags and not given.is_on("pods"):
            return _as_given(_in_manifests(settings, service), given)
        is_of_cluster = flags & {"kubeconfig", "master"} or given_choices(given)
        if is_of_cluster or ProgramStart().is_plugin:
            return _as_given(_in_cluster(given, settings, service), given)
    if given.is_on("pods"):
        raise ConfigError("--pods needs --kubeconfig, and no --server")
    admin = find_admin(given)
    body = admin.get("/api/v1/status", accept=JSON, service=service).body
    status = read_answer(body)
    subject = read_subject(status, service, f"the proxy at {admin}", is_live=True)
    return _Found(subject, (f"--server={admin}",) if "server" in given.values else ())


def _as_given(found: _Found, given: Given) -> _Found:
    """Return what was found by a plan, with all flags of ``run`` that were given for it."""
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

    # Who writes manifests may lead clients wherever this node does.
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
    # Manifests are mostly tried as an ordinary user, and so without steering.
    is_open = settings.steering == "auto"
    status = plan(steering="none" if is_open else settings.steering)
    subject = _planned(status, service, settings.manifests)
    if is_open:
        on_node = plan(steering="auto").only(service).ports
        subject = replace(subject, on_node=on_node)
    return _Found(subject, (f"--manifests={settings.manifests}",))


def _in_cluster(given: Given, settings: Settings, service: str) -> _Found:
    import asyncio

    from ..explain.planned import plan_status
    from ..explain.pods import judge_pods
    from ..policy import PolicyOptions
    from ..sources.kubernetes.one_service import OneServiceReader

    kubeconfig, with_pods = find(given, settings), given.is_on("pods")
    # This machine need not be a node.
    node = settings.hostname_override
    reader = OneServiceReader(kubeconfig=kubeconfig or "", master=settings.master, node_name=node)
    key = ServiceKey(*service.partition(":")[0].split("/", 1))
    one = asyncio.run(reader.read(key, with_pods=with_pods, within_s=_SERVER_S))
    options = replace(settings.as_options(PolicyOptions), node_name=node)
    status = plan_status(one.snapshot, options, now=Clocks.time(), steering=settings.steering)
    subject, pods = _planned(status, service, one.url), None
    if with_pods:
        state = one.snapshot.services[key]
        has_endpoints = any(item.endpoints for item in state.slices)
        steps = judge_pods(state.service, one.targets, one.pods, has_endpoints=has_endpoints)
        pods = tuple(steps)
    flags = {
        **({} if kubeconfig is None else flags_of(kubeconfig)),
        "master": settings.master,
        "hostname-override": node,
    }
    asked = tuple(f"--{name}={text}" for name, text in flags.items() if text)
    return _Found(subject, asked, pods)


def _planned(status: StatusFacts, service: str, origin: str) -> Subject:
    """Return what a plan says of a Service, or one port of it.

    Raises:
        UserspaceProxyError: There is none of that name, or it has no such port.
    """
    from ..explain import read_subject
    from ..status.missing import say_missing

    subject = read_subject(status, service, origin, is_live=False)
    if not (subject.ports or subject.ignored or subject.rejected):
        raise UserspaceProxyError(say_missing(status, service))
    return subject


def _dial(subject: Subject, way: tuple[str, ...]) -> dict[str, DialResult] | None:
    """Dial the addresses and endpoints; None if the way to the proxy's network is closed.

    Clients of UDP would have to send something.

    Endpoints that the proxy refuses are left out: anyone who may write EndpointSlices chooses them,
    and this machine's own programs and its cloud's metadata would be dialled.
    """
    from ..answering_child import ChildEnded
    from ..explain.dial import dial_by

    wanted: list[str] = []
    for port in subject.ports:
        if port.protocol != "TCP":
            continue
        if subject.node is not None:
            wanted += [frontend.address for frontend in port.frontends[:1]]
        wanted += [endpoint.address for endpoint in port.endpoints if not endpoint.is_refused]
    try:
        return dial_by(way, map(SocketAddress.read, wanted[:DIALLED_MAX]))
    except (ChildEnded, OSError):
        return None


@dataclass(frozen=True, slots=True)
class ProgramStart:
    """How a process was started, so that the commands it prints can be pasted as they are.

    The defaults are of this process. ``kubectl exec POD -- userspace-proxy`` becomes
    ``kubectl exec -n NAMESPACE POD -- userspace-proxy``; others begin with what was typed.
    """

    argv: Sequence[str] = field(default_factory=lambda: sys.argv)
    orig_argv: Sequence[str] = field(default_factory=lambda: sys.orig_argv)
    """With the interpreter and its flags."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    parent: int = field(default_factory=os.getppid)
    """0: the parent is in another PID namespace."""

    @property
    def is_plugin(self) -> bool:
        """Whether kubectl runs this program; its users expect that it reads the cluster."""
        return Path(self.argv[0]).name.startswith(_PLUGIN)

    @property
    def program(self) -> tuple[str, ...]:
        """The words that start it again, from where its user typed them."""
        return (*self._container(), *self._words())

    def _words(self) -> tuple[str, ...]:
        file = Path(self.argv[0])
        if self.is_plugin:
            return ("kubectl", file.name.removeprefix(_PLUGIN))
        if file.name == _MODULE_FILE:
            return tuple(self.orig_argv[: len(self.orig_argv) - len(self.argv[1:])])
        found = shutil.which(file.name, path=self.environment.get("PATH"))
        is_found = found is not None and file.exists() and file.samefile(found)
        return (file.name if is_found else str(file),)

    def _container(self) -> tuple[str, ...]:
        """Return the command that runs a program in this container, if the container is known.

        A program that ``kubectl exec`` runs itself has its parent outside the container; one that
        is typed in a shell there has the shell.
        """
        pod = self.environment.get("POD_NAME")
        if self.parent or not pod:
            return ()
        namespace = self.environment.get("POD_NAMESPACE", "")
        flags = ("-n", namespace) if namespace else ()
        return ("kubectl", "exec", *flags, pod, "--")
