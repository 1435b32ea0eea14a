"""``userspace-proxy sandbox``: runs a command in a network that serves manifests.

    sandbox: client (the command) ── node-1 (userspace-proxy run --steering=local, DNS)
                                        └── a pod for each endpoint of the manifests

The command reaches Services at their ClusterIPs and by DNS at their names, and the proxy's page at
the address that ``status`` and ``explain`` expect. Everything is in namespaces that are removed
when this process ends; the machine's own network isn't changed.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path

from userspace_proxy.causes.say import remedy, say
from userspace_proxy.cli.command import Given
from userspace_proxy.clocks import Clocks
from userspace_proxy.cluster import Snapshot
from userspace_proxy.cluster.from_names import before_lookups
from userspace_proxy.errors import ConfigError, InputError
from userspace_proxy.explain.planned import plan_status
from userspace_proxy.model import Endpoint, EndpointSlice, Protocol, ServiceKey
from userspace_proxy.model.quoting import printable
from userspace_proxy.model.similar import did_you_mean
from userspace_proxy.policy import PolicyOptions
from userspace_proxy.sources import load_state

from ..sandbox import Pod, Sandbox, write_resolver_files
from ..sandbox.environment import without_proxies
from .sandbox_proxy import (
    NODE,
    give_address,
    page_socket,
    page_socket_in,
    running_proxy,
    wait_until_ready,
)

# The pods' networks: part of the benchmarking range (RFC 2544) and a ULA prefix, both rarely used.
POD_CIDR = "198.18.0.0/16,fd00:198:18::/56"
_SHOWN = 20
"""The maximum number of printed lines about unserved Services."""
_KINDS = {Protocol.TCP: "tcp", Protocol.UDP: "udp"}


def sandbox(given: Given) -> int:
    """Run a command in a sandbox.

    Args:
        given: ``manifests``: a file or folder; ``namespace``: the first namespace for short names;
            ``own``: Services whose endpoints the command serves; ``rest``: the command.

    Returns:
        The command's exit status, or 128 plus the number of the signal that ended it.

    Raises:
        ConfigError: The manifests or the command is missing, or the manifests lack one of ``own``.
        SourceError, InputError: The manifests can't be listed, or contain an error.
        SandboxError: Namespaces can't be created here, or the proxy can't be started.
    """
    path = given.values.get("manifests", "")
    if not path or not given.rest:
        raise ConfigError(
            f"sandbox needs {'a command' if path else '--manifests'}",
            hint="userspace-proxy sandbox --manifests=PATH -- COMMAND",
        )
    manifests = Path(path).resolve()
    snapshot = _read(manifests)
    namespace = given.values.get("namespace", "default")
    own = _own(given.values.get("own", ""), namespace, snapshot)
    for line in unserved(snapshot):
        print(f"warning: {line}", file=sys.stderr, flush=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="userspace-proxy-")))
        health = stack.enter_context(page_socket(0))
        box = stack.enter_context(Sandbox(pod_cidr=POD_CIDR))
        client = box.add_pod("client")
        page = stack.enter_context(page_socket_in(client))
        _add_endpoints(box, snapshot, own, client)
        log = folder / "proxy.log"
        flags = [f"--dns-bind-address={box.node.ip}:53"]
        # A command that is both client and endpoint of a connection can't keep its client address,
        # so turn that off.
        flags += ["--preserve-client-address=never"] if own else []
        proxy = stack.enter_context(running_proxy(box, page, manifests, log, *flags, health=health))
        wait_until_ready(health.getsockname()[1], proxy, log, lambda: False)
        files = write_resolver_files(folder, str(box.node.ip), namespace)
        return _run([*client.prefix_with_files(files), *given.rest])


def unserved(snapshot: Snapshot) -> Iterator[str]:
    """Yield lines on the first _SHOWN unserved Services or ports, and one for all others."""
    # A sandbox's proxy doesn't resolve endpoints that are names, so plan as before a look-up.
    snapshot = before_lookups(snapshot, ())
    status = plan_status(
        snapshot, PolicyOptions(node_name=NODE), now=Clocks.time(), steering="local"
    )
    found = [
        (port.title, port.state.sentence, port.state.hint)
        for port in status.ports
        if port.state.is_problem
    ]
    found += [
        (
            item.service,
            f"{f'Port {item.port}' if item.port else 'It'} is not served: {say(item.cause)}",
            remedy(item.cause),
        )
        for item in status.ignored
        if item.is_conflict
    ]
    for name, sentence, hint in found[:_SHOWN]:
        yield printable(f"{name}: {sentence}{f' -> {hint}' if hint else ''}")
    if len(found) > _SHOWN:
        yield f"{len(found) - _SHOWN} more are not served: status lists them"


def _read(manifests: Path) -> Snapshot:
    state = load_state(manifests)
    if state.problems:
        raise InputError(state.problems[0])
    return state.snapshot


def _own(text: str, namespace: str, snapshot: Snapshot) -> frozenset[ServiceKey]:
    """Parse a list of Services such as ``web,shop/db``; raise ConfigError if one is missing."""
    keys = set()
    for word in filter(None, text.split(",")):
        before, slash, name = word.strip().rpartition("/")
        key = ServiceKey(before if slash else namespace, name)
        if key not in snapshot.services:
            raise ConfigError(
                f"--own: the manifests contain no Service {key}",
                hint=did_you_mean(str(key), map(str, snapshot.services)),
            )
        keys.add(key)
    return frozenset(keys)


def _add_endpoints(
    box: Sandbox, snapshot: Snapshot, own: Container[ServiceKey], client: Pod
) -> None:
    """Start a pod with backends for each ready endpoint's address that the client doesn't get.

    Args:
        own: Services whose endpoints' addresses are assigned to the client.
    """
    owned = {e.ip for item in _slices(snapshot) if item.service in own for e in item.endpoints}
    for ip in sorted(owned):
        give_address(box, client, ip)
    ports: dict[str, dict[str, set[int]]] = {}
    names: dict[str, str] = {}
    for item in _slices(snapshot):
        for endpoint in item.endpoints:
            if not endpoint.ready or endpoint.ip in owned:
                continue
            names.setdefault(endpoint.ip, _name(item, endpoint))
            of_ip = ports.setdefault(endpoint.ip, {})
            for port in item.ports:
                if port.protocol in Protocol.__members__:
                    kind = _KINDS[Protocol(port.protocol)]
                    of_ip.setdefault(kind, set()).add(port.port)
    for number, (ip, of_ip) in enumerate(ports.items()):
        pod = box.add_pod(f"endpoint-{number}")
        give_address(box, pod, ip)
        if of_ip:
            pod.serve(names[ip], **{kind: sorted(found) for kind, found in of_ip.items()})


def _slices(snapshot: Snapshot) -> Iterator[EndpointSlice]:
    for state in snapshot.services.values():
        yield from state.slices


def _name(item: EndpointSlice, endpoint: Endpoint) -> str:
    """Return the text with which an endpoint's backends answer."""
    return endpoint.hostname or f"{item.service.name}-{endpoint.ip.replace('.', '-')}"


def _run(argv: list[str]) -> int:
    """Run a command in the foreground, and pass SIGTERM on to it; return the exit status."""
    process = subprocess.Popen(argv, env=without_proxies())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    status = process.wait()
    return status if status >= 0 else 128 - status
