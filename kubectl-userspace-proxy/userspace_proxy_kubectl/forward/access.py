"""Checks at the API server that port-forwards and reading the Services are permitted.

Rule 1: every authenticated user may ask that, so a denial is known before it matters.

Source: authorization.k8s.io/v1, SelfSubjectAccessReview. A port-forward over WebSocket is a GET,
and from 1.35 on also needs ``create`` (feature gate AuthorizePodWebsocketUpgradeCreatePermission).
"""

from __future__ import annotations

import asyncio
import json
from typing import NamedTuple

from userspace_proxy.errors import SourceError
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.responses import TransportError, rejected, unreachable

_PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class _Right(NamedTuple):
    verb: str
    resource: str
    group: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {'/'.join(filter(None, (self.resource, self.subresource)))}"


_NEEDED = (
    _Right("list", "services"),
    _Right("watch", "services"),
    _Right("list", "endpointslices", "discovery.k8s.io"),
    _Right("watch", "endpointslices", "discovery.k8s.io"),
    _Right("get", "pods", subresource="portforward"),
    _Right("create", "pods", subresource="portforward"),
)


async def check_access(client: ApiClient, namespace: str, *, within_s: float) -> None:
    """Check that this user may read Services and forward ports; opens the client.

    Args:
        namespace: Empty: all namespaces.
        within_s: Seconds allowed for the server.

    Raises:
        SourceError: The server doesn't respond, or denies something that the message names.
    """
    try:
        # A credential plugin may ask for a password, which doesn't count against the server's time.
        await client.open()
        async with asyncio.timeout(within_s):
            denied = [right for right in _NEEDED if not await _is_allowed(client, right, namespace)]
    except TransportError as exc:
        raise SourceError(unreachable(client.url, exc).text) from exc
    except TimeoutError as exc:
        silence = TransportError(f"no answer within {within_s:g} s")
        raise SourceError(unreachable(client.url, silence).text) from exc
    if denied:
        place = f"in namespace {namespace}" if namespace else "in all namespaces"
        hint = "" if namespace else "; or name Services, or one namespace with --namespace"
        raise SourceError(
            f"the API server at {client.url} doesn't allow this user to "
            f"{', '.join(map(str, denied))} {place}",
            hint=f"have a Role with these rights granted to the user of the kubeconfig{hint}",
        )


async def _is_allowed(client: ApiClient, right: _Right, namespace: str) -> bool:
    attributes = {
        "verb": right.verb,
        "resource": right.resource,
        "group": right.group,
        "subresource": right.subresource,
        "namespace": namespace,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {name: text for name, text in attributes.items() if text}},
    }
    response = await client.send("POST", _PATH, body, content_type="application/json")
    if response.code == 404:
        # The API server has no authorization.
        return True
    if response.code not in (200, 201):
        failure = rejected(
            client.url,
            "review",
            "access",
            response,
            credentials=client.credentials.description,
        )
        raise SourceError(failure.text)
    try:
        return bool(json.loads(response.body)["status"]["allowed"])
    except (ValueError, KeyError, TypeError) as exc:
        raise SourceError(f"invalid response from {client.url} for an access review") from exc
