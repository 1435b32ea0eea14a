"""Gathers a report's material through the API server.

    reader ──first──▶ AllNodes ──gather──▶ Material: answers, logs, objects, missing parts

Rule 1: the numbers of Services, logs and Service ports are bounded, as is the time for them.
Rule 2: a part that can't be read doesn't fail the report: it is listed as missing, with the reason.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import msgspec

from userspace_proxy.causes.say import say
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.facts import Level, StatusFacts
from userspace_proxy.facts.units import plural
from userspace_proxy.model.wire import WireNamed, decode
from userspace_proxy.secrets import OWN
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.lists import read_whole
from userspace_proxy.sources.kubernetes.responses import cause_of

from ...port_forward import ForwardTarget
from ..agent_answer import AgentAnswer, AllNodes
from .agent_logs import AgentLog, read_logs
from .objects import WAKE, ServiceObjects, read_objects
from .pseudonyms import Pseudonyms
from .scrubbing import Scrubber

SERVICES_MAX = 100
"""The maximum number of Services whose objects are read; Services with problems on the most nodes
come first."""
PORTS_MAX = 50_000
"""The maximum number of Service ports in whole answers, at 3 kB each; other answers become
summaries. Nodes with problems come first."""
WITHIN_S = 60.0
"""Seconds for a list of named objects."""
_QUERY = {"limit": "500"}
# The name of a pod of a Deployment, of a DaemonSet or Job, or of a StatefulSet.
_POD = re.compile(r"(.+?)(?:(?:-[a-z0-9]{6,10})?-[bcdfghjklmnpqrstvwxz2456789]{5}|-\d+)")
_AT_ONCE = 8
_VERSION_FIELDS = ("gitVersion", "gitCommit", "goVersion", "platform")


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that a report lacks."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Material:
    """The gathered material, before secrets and names are removed."""

    all_nodes: AllNodes
    made_at: float
    logs: Sequence[AgentLog] = ()
    objects: Sequence[ServiceObjects] = ()
    server_version: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[Missing] = ()


def unserved(all_nodes: AllNodes) -> list[str]:
    """Return Services not served as planned, on the most nodes first, then by name."""
    counts: Counter[str] = Counter()
    for answer in all_nodes.answers:
        status = answer.status or StatusFacts()
        unhealthy = {port.names[0] for port in status.ports if port.state.level is not Level.OK}
        unhealthy |= {item.service for item in status.ignored if item.is_conflict}
        counts.update(unhealthy | {*answer.behind})
    return [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


async def make_scrubber(client: ApiClient, key: bytes | None) -> tuple[Scrubber, str]:
    """Return the scrubber, and why not all names are known (or an empty string).

    Args:
        client: The API server's client, open; its credentials count as secrets.
        key: The key of the pseudonyms; None to keep the names.
    """
    await client.credentials.header()
    if key is None:
        return Scrubber(OWN), ""
    pseudonyms = pseudonyms_of(client.url, key)
    return Scrubber(OWN, pseudonyms), await learn_all(client, pseudonyms)


def pseudonyms_of(url: str, key: bytes) -> Pseudonyms:
    """Return pseudonyms that cover the API server's host."""
    pseudonyms = Pseudonyms(key)
    host = urlsplit(url).hostname
    pseudonyms.learn("host", [host] if host else [])
    return pseudonyms


async def gather(
    client: ApiClient, all_nodes: AllNodes, *, made_at: float, unknown: str = ""
) -> Material:
    """Read the rest of a report's material, and return it together with the agents' answers.

    Args:
        unknown: Why some names to hide are unknown; unless empty, logs are left out.
    """
    services, (shown, cut) = unserved(all_nodes), _cut(all_nodes)
    missing = [
        Missing(f"answer of {one.node}", say(one.problem))
        for one in all_nodes.answers
        if one.problem
    ]
    if unknown:
        why = f"not all names in them could be hidden: {unknown}"
        missing.append(Missing("logs of agents", why))
    if cut:
        what = f"what is served on {plural(cut, 'node')}"
        missing.append(Missing(what, f"whole answers have {PORTS_MAX:,} Service ports"))
    if not all_nodes.has_nodes:
        missing.append(Missing("nodes without an agent", "the Nodes could not be listed"))
    if len(services) > SERVICES_MAX:
        what = f"objects of {plural(len(services) - SERVICES_MAX, 'Service')}"
        missing.append(Missing(what, f"those of the first {SERVICES_MAX} are contained"))
    version, objects, logs = await asyncio.gather(
        _server_version(client),
        _objects(client, services[:SERVICES_MAX]),
        read_logs(client, [] if unknown else _agents(all_nodes)),
    )
    if not version:
        missing.append(Missing("the version of the API server", "it gave none"))
    missing += [
        Missing(f"objects of Service {one.service}", one.problem) for one in objects if one.problem
    ]
    missing += _without_logs(logs)
    return Material(shown, made_at, logs, objects, version, missing)


def _cut(all_nodes: AllNodes) -> tuple[AllNodes, int]:
    """Reduce answers that don't fit to summaries; return all answers, and how many were reduced."""
    cut: dict[str, AgentAnswer] = {}
    left = PORTS_MAX
    for one in sorted(all_nodes.answers, key=lambda one: not _has_problem(one)):
        left -= len(one.status.ports) if one.status else 0
        if left < 0 and one.status is not None and not one.is_summary:
            cut[one.node] = replace(one, status=one.status.summarised(), is_summary=True)
    answers = tuple(cut.get(one.node, one) for one in all_nodes.answers)
    return replace(all_nodes, answers=answers), len(cut)


def _agents(all_nodes: AllNodes) -> list[ForwardTarget]:
    """Return all agents; agents of nodes with problems come first."""
    order = sorted(all_nodes.answers, key=lambda one: not _has_problem(one))
    return [agent for one in order for agent in one.agents]


def _has_problem(answer: AgentAnswer) -> bool:
    status = answer.status
    return status is None or status.level is not Level.OK or bool(answer.behind)


async def _objects(client: ApiClient, services: Sequence[str]) -> list[ServiceObjects]:
    free = asyncio.Semaphore(_AT_ONCE)

    async def read(service: str) -> ServiceObjects:
        async with free:
            return await read_objects(client, service)

    return await asyncio.gather(*map(read, services))


async def _server_version(client: ApiClient) -> dict[str, str]:
    try:
        response = await client.get("/version", {})
        found = msgspec.json.decode(response.body) if response.code == 200 else {}
    except (UserspaceProxyError, ValueError, RecursionError):
        return {}
    given = found if isinstance(found, dict) else {}
    return {name: str(given[name]) for name in _VERSION_FIELDS if name in given}


def _without_logs(logs: Sequence[AgentLog]) -> Iterator[Missing]:
    """Yield why logs are missing, merging agents with the same reason."""
    by_reason: dict[str, list[str]] = {}
    for one in logs:
        if one.problem:
            by_reason.setdefault(one.problem, []).append(f"{one.agent.namespace}/{one.agent.pod}")
    for reason, pods in by_reason.items():
        whose = pods[0] if len(pods) == 1 else f"{pods[0]} and {plural(len(pods) - 1, 'other')}"
        yield Missing(f"log of {whose}", reason)


async def learn_all(client: ApiClient, pseudonyms: Pseudonyms) -> str:
    """Learn all names by listing them, so that an anonymous report hides them everywhere.

    Returns:
        Why some names can't be listed, or an empty string.
    """
    kinds = (
        ("/api/v1/nodes", "node"),
        ("/api/v1/services", "service"),
        ("/apis/discovery.k8s.io/v1/endpointslices", "slice"),
    )
    for path, kind in kinds:

        def take(items: Sequence[bytes], kind: str = kind) -> None:
            _learn([decode(item, WireNamed) for item in items], kind, pseudonyms)

        try:
            refusal = await read_whole(client, path, _QUERY, take, within_s=WITHIN_S)
        except (UserspaceProxyError, ValueError) as exc:
            return str(exc)
        if refusal is not None:
            return cause_of(refusal)
    return ""


def _learn(items: Sequence[WireNamed], kind: str, pseudonyms: Pseudonyms) -> None:
    pseudonyms.learn("namespace", (item.metadata.namespace or "" for item in items))
    if kind != "slice":
        pseudonyms.learn(kind, (item.metadata.name or "" for item in items))
    ends = [end for item in items for end in item.endpoints or ()]
    pseudonyms.learn("node", (end.node_name or "" for end in ends))
    pseudonyms.learn("zone", (end.zone or "" for end in ends))
    pods = [end.target_ref.name or "" for end in ends if end.target_ref]
    pods += [end.hostname or "" for end in ends]
    pseudonyms.learn("pod", pods)
    stems = [found[1] for name in pods if (found := _POD.fullmatch(name))]
    waking = [(item.metadata.annotations or {}).get(WAKE) or "" for item in items]
    pseudonyms.learn("workload", (*stems, *(text.rpartition("/")[2] for text in waking)))
    pseudonyms.learn(kind, (item.metadata.name or "" for item in items))
