"""Reads Services from a Kubernetes API server: lists them, then watches for changes.

    client ──pages, lines──▶ reflector (per resource) ──▶ cache ──▶ store ──▶ source ──▶ snapshot
    credentials              position, back-off

Rule 1: kubernetes-asyncio provides the configuration, and reads a pod's service account. Only
``library`` and ``credentials`` use it, and import it when a run begins. ``kubeconfig`` alone reads
kubeconfigs (ADR 0087).
Rule 2: the API server's responses and network failures are values; none of them stops the source.
"""

from .source import KubernetesSource

__all__ = ["KubernetesSource"]
