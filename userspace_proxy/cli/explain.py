"""``userspace-proxy explain``: follows the path of connections to one Service.

--manifests ───────▶ plan ──┐
--kubeconfig ──────▶ plan ──┼──▶ steps ──▶ one sentence, next command
admin address ──────────────┘
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from ..errors import UserspaceProxyError
from ..model import SocketAddress
from .admin import find_admin
from .command import DONE, NEEDS_ATTENTION, Given
from .status import JSON, service_name
from .terminal import write

if TYPE_CHECKING:
    from ..config import Settings
    from ..explain import Subject
    from ..explain.probe import ProbeResult

# More take longer than anyone waits.
_DIALLED_MAX = 64


def explain(given: Given) -> int:
    """Print the steps; return the exit status, 3 if clients aren't served as they should be.

    Raises:
        UserspaceProxyError: There is no such Service, or the source can't be read.
    """
    from .. import explain as explaining

    service = service_name(given.arguments[0])
    client = _client(given.values.get("from", ""))
    subject, asked = _subject(given, service)
    probes = _probe(subject) if given.is_on("probe") else None
    explanation = explaining.explain(subject, client=client, probes=probes, asked=asked)
    if given.values.get("output") == "json":
        sys.stdout.write(explaining.render_json(explanation))
    else:
        write(sys.stdout, explaining.render_text(explanation))
    return DONE if explanation.level == "ok" else NEEDS_ATTENTION


def _client(text: str) -> str:
    from ..config.flags import parsed
    from ..config.values import parse_address

    return str(parsed("from", text, parse_address)) if text else ""


def _subject(given: Given, service: str) -> tuple[Subject, tuple[str, ...]]:
    """Return the facts, and the flags that named their source."""
    from ..config.load import load_settings
    from ..explain import read_subject

    settings = load_settings(given.settings).settings
    if settings.origins.get("manifests") == "flag" and "server" not in given.values:
        status = _of_manifests(settings, service)
        subject = read_subject(status, service, settings.manifests, is_live=False)
        return subject, (f"--manifests={settings.manifests}",)
    admin = find_admin(given)
    body = admin.get("/api/v1/status", accept=JSON, service=service).body
    subject = read_subject(json.loads(body), service, f"the proxy at {admin}", is_live=True)
    return subject, (f"--server={admin}",) if "server" in given.values else ()


def _of_manifests(settings: Settings, service: str) -> dict[str, Any]:
    from ..agent.run import make_options
    from ..explain.planned import plan_status
    from ..sources.manifests import load_manifests

    options = make_options(settings)
    snapshot, problems = load_manifests(
        settings.manifests,
        node_name=options.node_name,
        service_cidrs=settings.service_cluster_ip_range,
    )
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    names = [str(key) for key in snapshot.services]
    if service.partition(":")[0] not in names:
        raise _missing(service, names)
    return plan_status(snapshot, options, now=time.time(), is_node=False)


def _missing(service: str, names: list[str]) -> UserspaceProxyError:
    from ..model.similar import did_you_mean

    key = service.partition(":")[0]
    return UserspaceProxyError(f"there is no Service {key}", hint=did_you_mean(key, names))


def _probe(subject: Subject) -> dict[str, ProbeResult]:
    """Dial the addresses and endpoints; clients of UDP would have to send something."""
    from ..explain.probe import probe

    wanted: list[str] = []
    for port in subject.ports:
        if port.protocol != "TCP":
            continue
        if subject.node is not None:
            wanted += [frontend.address for frontend in port.frontends[:1]]
        wanted += [endpoint.address for endpoint in port.endpoints]
    return probe(map(_address, wanted[:_DIALLED_MAX]))


def _address(text: str) -> SocketAddress:
    ip, _, port = text.rpartition(":")
    return SocketAddress(ip.strip("[]"), int(port))
