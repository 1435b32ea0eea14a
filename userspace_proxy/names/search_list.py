"""The search list of a pod: which absolute names a short one may mean, in order."""

from __future__ import annotations

from collections.abc import Sequence

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
