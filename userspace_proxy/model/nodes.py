"""The node that the proxy runs on, as its Node object describes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the cluster."""

    name: str
    addresses: tuple[str, ...] = ()
    """Its InternalIP and ExternalIP addresses, in the object's order."""
    zone: str = ""
    pod_networks: tuple[str, ...] = ()
    """Where its pods' addresses come from, in canonical form; empty: the object doesn't say."""
    is_being_deleted: bool = False
    """It has a deletion timestamp, or the cluster autoscaler's taint that says the same.

    Source: kube-proxy's NodeEligible: ToBeDeletedByClusterAutoscaler, KEP-3836."""
