"""Checks whether ports and descriptors suffice, and which programs use them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..agent.rounds.node_ports import RefusePort
from ..config import InheritedSocket, ListenAddress
from ..errors import ListenError
from ..facts.units import plural
from ..kernel.port_holders import ANOTHER, PortHolder, held_ports, owners_of, serves, who_holds
from ..model import IPFamily, Protocol
from ..policy.locality import FIRST_PORT, LAST_PORT
from .finding import Finding, error, ok, warning

# Kubernetes' default --service-node-port-range.
NODE_PORTS = (30000, 32767)
_LOCAL = "net.ipv4.ip_local_port_range"
_RESERVED = "net.ipv4.ip_local_reserved_ports"
# The number of connections that a medium-sized node should support, with two descriptors each.
_CONNECTIONS = 1000

Span = tuple[int, int]


def judge_ranges(
    values: Mapping[str, str], proxy_ports: Span, *, uses_client_ports: bool
) -> list[Finding]:
    """Report whether outgoing connections or node ports may take ports that the proxy needs."""
    found = [
        *_overlap(values, proxy_ports, "proxy ports", "--proxy-ports below it; or "),
        *_overlap(values, NODE_PORTS, "node ports", ""),
    ]
    if uses_client_ports:
        span = (FIRST_PORT, LAST_PORT)
        found += _overlap(values, span, "the source ports of connections with client addresses", "")
    if shared := _common(proxy_ports, NODE_PORTS):
        found.append(
            warning(
                "ports",
                f"--proxy-ports={_words(proxy_ports)} overlaps node ports "
                f"({_words(shared)}): a Service's node port may be in use",
                hint="use --proxy-ports=17000-29999",
            )
        )
    if found or _LOCAL not in values:
        return found
    return [
        ok("ports", f"the node's own connections don't use the proxy ports {_words(proxy_ports)}")
    ]


def _overlap(values: Mapping[str, str], span: Span, name: str, hint: str) -> Iterator[Finding]:
    numbers = values.get(_LOCAL, "").split()
    if len(numbers) != 2:
        return
    shared = _common(span, (int(numbers[0]), int(numbers[1])))
    kept = values.get(_RESERVED, "")
    if shared is None or _is_reserved(shared, kept):
        return
    wanted = ",".join(part for part in (kept, _words(shared)) if part)
    yield warning(
        "ports",
        f"the node's own connections may take {name} {_words(shared)}: {_LOCAL} is "
        f"{numbers[0]}-{numbers[1]}",
        "/proc/sys/" + _LOCAL.replace(".", "/"),
        f"{hint}sysctl -w {_RESERVED}={wanted}",
    )


def _common(one: Span, other: Span) -> Span | None:
    first, last = max(one[0], other[0]), min(one[1], other[1])
    return (first, last) if first <= last else None


def _is_reserved(span: Span, text: str) -> bool:
    """Return whether the kernel assigns these ports only to sockets that bind them explicitly."""
    ports = set(range(span[0], span[1] + 1))
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        ports -= set(range(int(first), int(last or first) + 1))
    return not ports


def _words(span: Span) -> str:
    return f"{span[0]}-{span[1]}"


def judge_descriptors(
    limit: int, service_ports: int | None, workers: int, proxy_ports: Span
) -> list[Finding]:
    """Report whether descriptors and proxy ports suffice.

    Args:
        limit: The hard RLIMIT_NOFILE, bounded as in ``run``.
        service_ports: The number of Service ports of both families; None if unknown.
    """
    if service_ports is None:
        return [ok("limits", f"{limit:,} open files")]
    found = []
    room = proxy_ports[1] - proxy_ports[0]
    if service_ports > room:
        found.append(
            error(
                "limits",
                f"{service_ports:,} Service ports need more than the {room:,} proxy ports",
                hint="a wider --proxy-ports",
            )
        )
    listeners = service_ports * workers
    if listeners + 2 * _CONNECTIONS > limit:
        found.append(
            warning(
                "limits",
                f"{limit:,} open files may be too few for {plural(service_ports, 'Service port')} "
                f"in {plural(workers, 'worker')} ({plural(listeners, 'listener')}) and "
                f"{_CONNECTIONS:,} connections",
                hint=f"ulimit -Hn {2 * listeners + 64 * _CONNECTIONS} (systemd: LimitNOFILE=), "
                "or fewer --workers",
            )
        )
    counts = (plural(service_ports, "Service port"), plural(workers, "worker"))
    return found or [ok("limits", ", ".join([*counts, f"{limit:,} open files"]))]


def find_holders(addresses: Iterable[tuple[str, ListenAddress | None]]) -> dict[str, PortHolder]:
    """Return the programs that listen on the servers' addresses, by ``flag=address``.

    Args:
        addresses: Flags and addresses; None for a disabled server.
    """
    holders = {}
    for flag, address in addresses:
        if address is None or isinstance(address, InheritedSocket) or address.port == 0:
            continue
        family = IPFamily.IPV6 if ":" in address.ip else IPFamily.IPV4
        if any(serves(held, address.port, family) for held in held_ports(Protocol.TCP)):
            holder = who_holds(Protocol.TCP, address.port, family) or ANOTHER
            holders[f"{flag}={address}"] = holder
    return holders


def judge_holders(holders: Mapping[str, PortHolder], own_pids: Sequence[int]) -> list[Finding]:
    """Report programs, except running proxies, that use the status servers' addresses."""
    return [
        error(
            "ports",
            f"{flag}: {holder} uses that port",
            hint="stop it (kube-proxy: delete its DaemonSet), or choose another address",
        )
        for flag, holder in sorted(holders.items())
        if holder.pid not in own_pids
    ]


def find_range_holder(proxy_ports: Span) -> PortHolder | None:
    """Return a program that uses proxy ports if no proxy port is free; otherwise None.

    The check binds a port, because the kernel doesn't list bound ports without a listener.
    """
    first, last = proxy_ports
    free = RefusePort()
    try:
        number = free.open(first, last)
    except ListenError:
        number = 0
    finally:
        free.close()
    if first <= number <= last:
        return None
    ports = range(first, last + 1)
    inodes = {held.inode for held in held_ports(Protocol.TCP) if held.port in ports}
    # Return any owner: the search covers only the lowest descriptors of each process.
    return next(iter(owners_of(inodes).values()), ANOTHER)


def judge_range_holder(
    holder: PortHolder | None, proxy_ports: Span, own_pids: Sequence[int]
) -> list[Finding]:
    """Report that no proxy port is free, and name a program that holds some of them."""
    if holder is None or holder.pid in own_pids:
        return []
    return [
        error(
            "ports",
            f"no proxy port of {_words(proxy_ports)} is free: {holder} holds some of them",
            hint="stop it, or choose another --proxy-ports",
        )
    ]
