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
    """Networks of its pods, in canonical form; may be empty."""
    is_being_deleted: bool = False
    """It has a deletion timestamp, or the cluster autoscaler's taint for deletion.

    Source: kube-proxy's NodeEligible: ToBeDeletedByClusterAutoscaler, KEP-3836."""
    is_missing: bool = False
    """The cluster has no Node of this name."""
    similar: tuple[str, ...] = ()
    """If it is missing: Nodes with a similar name, most likely first."""
