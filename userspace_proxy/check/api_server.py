"""Checks whether the API server answers and permits reading what ``run`` reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..config import Settings
from .finding import Finding, error, ok
from .inputs import Inputs

ANSWER_S = 5.0
"""For all requests together; a healthy API server answers in some 10 ms."""


def look_at_server(settings: Settings, node_name: str) -> tuple[list[Finding], Inputs]:
    """Request one object of each kind from the API server."""
    from ..sources.kubernetes.permissions import ask_server

    said = asyncio.run(
        ask_server(
            kubeconfig=settings.kubeconfig,
            master=settings.master,
            node_name=node_name,
            within_s=ANSWER_S,
            endpoints_from_pods=settings.endpoints_from_pods,
        )
    )
    findings = judge_server(
        said.url, said.problems, said.version, with_pods=settings.endpoints_from_pods
    )
    return findings, Inputs(service_ips=said.service_ips)


def judge_server(
    url: str, problems: Sequence[str], version: str, *, with_pods: bool = False
) -> list[Finding]:
    """Report whether all objects may be read."""
    if problems:
        return [error("API server", line) for line in problems]
    known = f" (Kubernetes {version})" if version else ""
    pods = ", Pods" if with_pods else ""
    kinds = f"Services, EndpointSlices{pods} and this Node"
    return [ok("API server", f"{kinds} can be read{known}", url)]
