"""Reports which rights a user lacks for reading all nodes or for forwarding Services.

Rule 1: every authenticated user may request access reviews, so ``forward`` reports a missing right
before the first dial.

Source: authentication.k8s.io/v1, SelfSubjectReview (since 1.28); the chart's ``view.create``;
authorization.k8s.io/v1, SelfSubjectAccessReview. A port-forward over WebSocket is a GET, and from
1.35 on also needs ``create`` (feature gate AuthorizePodWebsocketUpgradeCreatePermission).
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import NamedTuple

from userspace_proxy.errors import SourceError
from userspace_proxy.model.quoting import shell_command
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.responses import (
    Response,
    TransportError,
    rejected,
    unreachable,
)

ROLE = "userspace-proxy-view"
"""The chart's Role in the release's namespace, for users that read all nodes."""

_AUTHENTICATION, _AUTHORIZATION = "authentication.k8s.io/v1", "authorization.k8s.io/v1"
_SERVICE_ACCOUNT = "system:serviceaccount:"
_WORDS_MAX = 300


async def lacks_rights(client: ApiClient, what: str, namespace: str, words: str) -> SourceError:
    """Return the error for a missing right.

    Args:
        what: The denied action, such as ``list pods``.
        namespace: The namespace of the action.
        words: The server's message.
    """
    user = await _user(client)
    return SourceError(
        f"the API server at {client.url} doesn't allow {user or 'this user'} to {what} in "
        f"namespace {namespace}: {' '.join(words.split())[:_WORDS_MAX]}",
        hint="an administrator grants it, with view.create of the chart, by: "
        f"{grant_command(user, namespace)}",
    )


def grant_command(user: str, namespace: str) -> str:
    """Return the command that grants the role to a user, or to ``USER`` if the name is empty."""
    if user.startswith(_SERVICE_ACCOUNT):
        name = user.removeprefix(_SERVICE_ACCOUNT)
        whom = f"--serviceaccount={name}"
    else:
        name = user or "USER"
        whom = f"--user={name}"
    binding = ROLE + "-" + re.sub(r"[^A-Za-z0-9.@_-]", "-", name)
    words = ["-n", namespace, "create", "rolebinding", binding, f"--role={ROLE}", whom]
    return shell_command("kubectl", *words)


async def _user(client: ApiClient) -> str:
    """Return this user's name; empty if the server doesn't report it."""
    try:
        response = await _review(client, _AUTHENTICATION, "SelfSubjectReview")
        return str(json.loads(response.body)["status"]["userInfo"]["username"])
    except (TransportError, ValueError, KeyError, TypeError):
        return ""


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
    """Open the client, and check that this user may read Services and forward ports.

    Args:
        namespace: The namespace to check; empty for all namespaces.
        within_s: Seconds allowed for all answers of the server together.

    Raises:
        SourceError: The server doesn't respond, or denies something that the message names.
    """
    try:
        # A credential plugin may ask for a password, which doesn't count towards the time limit.
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
    spec = {"resourceAttributes": {name: text for name, text in attributes.items() if text}}
    response = await _review(client, _AUTHORIZATION, "SelfSubjectAccessReview", spec=spec)
    if response.code == 404:
        # Access reviews aren't served: assume the right; without it, the request itself will fail.
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


async def _review(client: ApiClient, version: str, kind: str, **fields: object) -> Response:
    body = {"apiVersion": version, "kind": kind, **fields}
    path = f"/apis/{version}/{kind.lower()}s"
    return await client.send("POST", path, body, content_type="application/json")
