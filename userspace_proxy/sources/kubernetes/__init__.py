"""Services from a Kubernetes API server: list, then watch, forever.

    connection ──pages, lines──▶ reflector (one a kind) ──▶ table ──▶ store ──▶ source ──▶ snapshot
    (kubernetes-asyncio)         position, back-off

Rule 1: kubernetes-asyncio gives configuration, authentication and transport, and is known
to ``library``, ``credentials`` and ``connection`` only; none of them imports it before
a run begins.
Rule 2: what the API server says and how the network fails are values here; nothing that
it can do ends a run.
"""

from .source import KubernetesSource

__all__ = ["KubernetesSource"]
