"""Opens and finds the abstract sockets over which a control process adopts previous workers.

    userspace-proxy-worker#…, userspace-proxy-worker/LABEL#…    one listening socket per worker

The control process opens these sockets, so they belong to its own user, usually root, and not to
the user of the workers. It proves their origin, which workers can't, so no other process can pose
as a worker. ``authentication`` defines how the next control process proves its right to them.
"""

from __future__ import annotations

import re
import secrets

from ..kernel import abstract_sockets
from ..kernel.abstract_sockets import ProvenSocket
from ..kernel.net_admin_proof import Prover

_NAME = "userspace-proxy-worker"
# The length of the accept queue; a worker accepts only when its control process has exited.
_QUEUE = abstract_sockets.QUEUE
# How long to wait for room in a worker's accept queue, which other processes also use.
_ROOM_S = 2.0


def open_worker_socket(label: str) -> ProvenSocket:
    """Return a listening socket for a worker of the proxy with this label; the caller closes it.

    Raises:
        OSError: No descriptor is left, or the port ID of a proof is taken.
    """
    sock = ProvenSocket(f"\0{_prefix(label)}{secrets.token_hex(8)}")
    try:
        sock.listen(_QUEUE)
    except BaseException:
        sock.close()
        raise
    return sock


def connect_to_workers(label: str) -> list[Prover]:
    """Return a connection to each worker left by a proxy with this label; the caller closes it.

    A worker accepts the connection once its own control process is gone. This blocks for up to 2 s
    if queues are full; workers whose queues stay full are skipped.
    """
    pattern = f"@({re.escape(_prefix(label))}[0-9a-f]+)"
    names = {f"\0{match[1].decode()}" for match in abstract_sockets.shown_names(pattern)}
    return [sock for _, sock in abstract_sockets.connect_each(names, _ROOM_S) if sock]


def worker_labels() -> set[str]:
    """Return the labels of proxies with workers in this network namespace."""
    found = abstract_sockets.shown_names(f"@{_NAME}(?:/(?P<label>[A-Za-z0-9._~-]+))?#[0-9a-f]+")
    return {(match["label"] or b"").decode() for match in found}


def _prefix(label: str) -> str:
    return f"{_NAME}/{label}#" if label else f"{_NAME}#"
