"""Sets up the control plane of docker-compose.yml, the only user of this file.

set_up.py credentials FOLDER     writes missing keys, tokens and kubeconfigs
set_up.py apply FOLDER FILE      waits for the API server and applies the objects of a file
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

SERVER = "https://kubernetes:6443"
CERTIFICATE = "/certificates/apiserver.crt"
READY_WITHIN_S = 120.0
# Users with their groups. RBAC always allows system:kube-proxy to read the proxy's objects.
USERS = {"admin": "system:masters", "system:kube-proxy": ""}
PLURALS = {"Service": "services", "EndpointSlice": "endpointslices"}


def write_credentials(folder: Path) -> None:
    """Write all files unless they exist, so that a restart changes nothing."""
    if (folder / "proxy.conf").exists():
        return
    tokens = {user: secrets.token_urlsafe(32) for user in USERS}
    lines = [f'{tokens[user]},{user},{user},"{group}"\n' for user, group in USERS.items()]
    write(folder / "tokens.csv", "".join(lines))
    write(folder / "admin.token", tokens["admin"])
    write(folder / "service-accounts.key", make_key())
    write(folder / "proxy.conf", make_kubeconfig(tokens["system:kube-proxy"]))


def write(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text)


def make_key() -> str:
    """Return a new private key on the curve P-256, as PEM.

    Source: RFC 5915: version 1, the number, the curve; the public key is optional.
    """
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    number = (1 + secrets.randbelow(order - 1)).to_bytes(32, "big")
    curve = bytes.fromhex("a00a06082a8648ce3d030107")
    body = bytes.fromhex("020101") + bytes.fromhex("0420") + number + curve
    text = base64.encodebytes(bytes([0x30, len(body)]) + body).decode()
    return f"-----BEGIN EC PRIVATE KEY-----\n{text}-----END EC PRIVATE KEY-----\n"


def make_kubeconfig(token: str) -> str:
    """Return a user's kubeconfig as JSON, which is also valid YAML."""
    cluster = {"server": SERVER, "certificate-authority": CERTIFICATE}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "compose", "cluster": cluster}],
        "users": [{"name": "compose", "user": {"token": token}}],
        "contexts": [{"name": "compose", "context": {"cluster": "compose", "user": "compose"}}],
        "current-context": "compose",
    }
    return json.dumps(config, indent=2)


def apply(folder: Path, file: Path) -> None:
    """Apply every object of a file, once the API server accepts requests."""
    token = (folder / "admin.token").read_text()
    for manifest in yaml.safe_load_all(file.read_text()):
        metadata = manifest["metadata"]
        version = manifest["apiVersion"]
        root = "api" if version == "v1" else "apis"
        path = f"/{root}/{version}/namespaces/{metadata['namespace']}"
        path += f"/{PLURALS[manifest['kind']]}/{metadata['name']}"
        patch(f"{SERVER}{path}?fieldManager=compose&force=true", json.dumps(manifest), token)
        print(f"{manifest['kind']} {metadata['name']} applied", flush=True)


def patch(url: str, body: str, token: str) -> None:
    """Send a server-side apply, and retry until the server accepts it.

    A starting server has no range of ClusterIPs yet, and rejects each ClusterIP as invalid.

    Raises:
        OSError: The server can't parse the object, still rejects it, or didn't start in time.
    """
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/apply-patch+yaml",
    }
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            context = ssl.create_default_context(cafile=CERTIFICATE)
            request = urllib.request.Request(url, body.encode(), headers, method="PATCH")
            urllib.request.urlopen(request, timeout=10, context=context).close()
            return
        except urllib.error.HTTPError as exc:
            with exc:
                answer = exc.read().decode(errors="replace")
            if exc.code == 400 or time.monotonic() > deadline:
                raise OSError(f"{url}: {exc.code} {answer}") from None
        except OSError:
            if time.monotonic() > deadline:
                raise
        threading.Event().wait(0.5)


if __name__ == "__main__":
    if sys.argv[1] == "credentials":
        write_credentials(Path(sys.argv[2]))
    else:
        try:
            apply(Path(sys.argv[2]), Path(sys.argv[3]))
        except OSError as exc:
            sys.exit(f"error: {exc}")
