"""Reports the rights that a user lacks to read all nodes, with an administrator's command.

Source: authentication.k8s.io/v1, SelfSubjectReview (since 1.28); the chart's ``view.create``.
"""

from __future__ import annotations

import json
import re

from userspace_proxy.errors import SourceError
from userspace_proxy.model.quoting import shell_command
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.responses import TransportError

ROLE = "userspace-proxy-view"
"""The chart's Role in the release's namespace, for users who read all nodes."""

_PATH = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
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
    """Return the command that grants the role to a user; empty: the user's name is unknown."""
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
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        response = await client.send("POST", _PATH, body, content_type="application/json")
        return str(json.loads(response.body)["status"]["userInfo"]["username"])
    except (TransportError, ValueError, KeyError, TypeError):
        return ""
