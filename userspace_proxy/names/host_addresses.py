"""Resolves a host name as a program in a pod of a given namespace would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .records import Code, RecordType
from .resolver import ServiceNames


@dataclass(frozen=True, slots=True)
class FoundName:
    """A host name of the cluster; it may be an alias for a name outside the cluster."""

    name: str
    """The absolute name, with a trailing dot."""
    ips: tuple[str, ...] = ()
    """IPv4 first; empty if the name doesn't exist or has no address."""
    elsewhere: str = ""
    """The name to look up instead; empty if the name isn't an alias."""


def find_name(names: ServiceNames, host: str, search: Sequence[str]) -> FoundName | None:
    """Look up a host name; return None if it isn't a name of the cluster.

    Args:
        host: ``web``, ``web.shop`` or ``web.shop.svc.cluster.local``, with or without a trailing
            dot.
        search: The domains from :func:`.search_list`.
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
        # Like glibc, try the next candidate even if the name exists but has no address.
        if candidate.rstrip(".") == host.rstrip("."):
            found = FoundName(candidate)
    return found


NDOTS = 5
"""A name with fewer dots is tried in the search domains before it is tried as absolute.

Source: kubelet's resolv.conf for dnsPolicy ClusterFirst."""


def search_list(namespace: str, domain: str) -> tuple[str, ...]:
    """Return the search domains of a pod in a namespace.

    Source: kubelet's resolv.conf for dnsPolicy ClusterFirst.
    """
    return f"{namespace}.svc.{domain}", f"svc.{domain}", domain


def candidates(name: str, search: Sequence[str], ndots: int = NDOTS) -> tuple[str, ...]:
    """Return the absolute names to try in turn, with trailing dots.

    Source: resolv.conf(5), and glibc's res_search.
    """
    if name.endswith("."):
        return (name,)
    searched = tuple(f"{name}.{domain}." for domain in search)
    if name.count(".") >= ndots:
        return (f"{name}.", *searched)
    return (*searched, f"{name}.")
