"""Which addresses a host name has that a program looks up, as in a pod of a namespace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .records import Code, RecordType
from .resolver import ServiceNames


@dataclass(frozen=True, slots=True)
class FoundName:
    """What a host name is: a name of the cluster, or an alias of a name elsewhere."""

    name: str
    """Absolute, with a dot at its end."""
    ips: tuple[str, ...] = ()
    """IPv4 first; empty: there is no such name, or it has no address."""
    elsewhere: str = ""
    """Look this name up instead, if it isn't empty."""


def find_name(names: ServiceNames, host: str, search: Sequence[str]) -> FoundName | None:
    """Look a host name up; None if it isn't a name of the cluster.

    Args:
        host: ``web``, ``web.shop`` or ``web.shop.svc.cluster.local``, perhaps with a dot at its
            end.
        search: As :func:`.search_list` returns it.
    """
    found = None
    for candidate in candidates(host, search):
        answers = [names.answer(candidate, type_) for type_ in (RecordType.A, RecordType.AAAA)]
        if answers[0].code is Code.REFUSED:
            continue
        if elsewhere := answers[0].elsewhere:
            return FoundName(candidate, elsewhere=elsewhere.removesuffix("."))
        ips = [r.data for a in answers for r in a.records if r.type is not RecordType.CNAME]
        if ips:
            return FoundName(candidate, tuple(ips))
        # Also one without an address: then the next candidate is tried, as glibc does.
        if candidate.rstrip(".") == host.rstrip("."):
            found = FoundName(candidate)
    return found


NDOTS = 5
"""A name with fewer dots is searched before it is taken as absolute.

Source: kubelet's resolv.conf for dnsPolicy ClusterFirst."""


def search_list(namespace: str, domain: str) -> tuple[str, ...]:
    """Return the domains that a pod of a namespace searches.

    Source: kubelet's resolv.conf for dnsPolicy ClusterFirst.
    """
    return f"{namespace}.svc.{domain}", f"svc.{domain}", domain


def candidates(name: str, search: Sequence[str], ndots: int = NDOTS) -> tuple[str, ...]:
    """Return the absolute names to ask for in turn, with a dot at their ends.

    Source: resolv.conf(5), and glibc's res_search.
    """
    if name.endswith("."):
        return (name,)
    searched = tuple(f"{name}.{domain}." for domain in search)
    if name.count(".") >= ndots:
        return (f"{name}.", *searched)
    return (*searched, f"{name}.")
