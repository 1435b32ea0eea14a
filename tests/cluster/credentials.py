"""Credentials for the control plane: tokens, kubeconfigs, and the service accounts' key."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping

ADMIN = "admin"
NODE_PROXIER = "userspace-proxy"
GROUPS = {ADMIN: "system:masters", NODE_PROXIER: ""}
"""Users with a token, and their group: the admin has all rights, the other user a role's rights."""


def token_of(user: str) -> str:
    """Return the token of a user."""
    return f"{user}-token"


def render_tokens(groups: Mapping[str, str] = GROUPS) -> str:
    """Return the file for ``--token-auth-file``: token, user, uid, groups."""
    return "".join(f'{token_of(user)},{user},{user},"{group}"\n' for user, group in groups.items())


def render_kubeconfig(server: str, ca: bytes, token: str) -> str:
    """Return a self-contained kubeconfig as JSON, which is also YAML, and which needs no package.

    Args:
        server: The URL to dial.
        ca: The certificate of the server or of its CA, as PEM.
        token: A token, valid or not.
    """
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    return json.dumps(config, indent=2)


def make_service_account_key() -> str:
    """Return a new private key as PEM, without which kube-apiserver doesn't start.

    The key both signs and verifies: the API server derives the public key from a private key in the
    older format, which ``openssl ecparam`` writes and ``genpkey`` doesn't.
    """
    command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
