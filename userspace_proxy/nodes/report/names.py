"""All names of a cluster, so that an anonymous report hides them wherever they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from ...errors import UserspaceProxyError
from ...sources.kubernetes.client import ApiClient
from ...sources.kubernetes.lists import read_whole
from ...sources.kubernetes.responses import cause_of
from .objects import WAKE
from .pseudonyms import Pseudonyms

WITHIN_S = 60.0
_QUERY = {"limit": "500"}
# A Deployment's, a DaemonSet's or Job's, a StatefulSet's.
_POD = re.compile(r"(.+?)(?:(?:-[a-z0-9]{6,10})?-[bcdfghjklmnpqrstvwxz2456789]{5}|-\d+)")


class _Named(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    annotations: Mapping[str, str] | None = None


class _Target(msgspec.Struct):
    name: str | None = ""
    namespace: str | None = ""


class _SliceEnd(msgspec.Struct, rename="camel"):
    target_ref: _Target | None = None
    node_name: str | None = ""
    hostname: str | None = ""
    zone: str | None = ""


class _Item(msgspec.Struct):
    metadata: _Named = msgspec.field(default_factory=_Named)
    endpoints: Sequence[_SliceEnd] | None = ()


async def learn_all(client: ApiClient, pseudonyms: Pseudonyms) -> str:
    """List what has names, and learn them; return why some can't be listed, or an empty text."""
    kinds = (
        ("/api/v1/nodes", "node"),
        ("/api/v1/services", "service"),
        ("/apis/discovery.k8s.io/v1/endpointslices", "slice"),
    )
    for path, kind in kinds:

        def take(items: Sequence[bytes], kind: str = kind) -> None:
            _learn([msgspec.json.decode(item, type=_Item) for item in items], kind, pseudonyms)

        try:
            refusal = await read_whole(client, path, _QUERY, take, within_s=WITHIN_S)
        except (UserspaceProxyError, ValueError) as exc:
            return str(exc)
        if refusal is not None:
            return cause_of(refusal)
    return ""


def _learn(items: Sequence[_Item], kind: str, pseudonyms: Pseudonyms) -> None:
    pseudonyms.learn("namespace", (item.metadata.namespace for item in items))
    if kind != "slice":
        pseudonyms.learn(kind, (item.metadata.name for item in items))
    ends = [end for item in items for end in item.endpoints or ()]
    pseudonyms.learn("node", (end.node_name or "" for end in ends))
    pseudonyms.learn("zone", (end.zone or "" for end in ends))
    pods = [end.target_ref.name or "" for end in ends if end.target_ref]
    pods += [end.hostname or "" for end in ends]
    pseudonyms.learn("pod", pods)
    stems = [found[1] for name in pods if (found := _POD.fullmatch(name))]
    waking = [(item.metadata.annotations or {}).get(WAKE, "") for item in items]
    pseudonyms.learn("workload", (*stems, *(text.rpartition("/")[2] for text in waking)))
    pseudonyms.learn(kind, (item.metadata.name for item in items))
