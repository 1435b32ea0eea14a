"""Where the next control process finds the workers that outlived the last one.

    userspace-proxy-worker#…, userspace-proxy-worker/LABEL#…    one listening socket for each worker

The control process opens them, so that root, or its user, listens on them, and not the workers'.
"""

from __future__ import annotations

import re
import secrets
import socket

from ..kernel import abstract_sockets

_NAME = "userspace-proxy-worker"


def open_rendezvous(label: str) -> socket.socket:
    """Return a listening socket for a worker of the proxy with this label; the caller closes it.

    Raises:
        OSError: There is no descriptor left.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(f"\0{_prefix(label)}{secrets.token_hex(8)}")
        sock.listen(1)
    except BaseException:
        sock.close()
        raise
    return sock


def connect_to_workers(label: str) -> list[socket.socket]:
    """Return a connection to each worker that a proxy of this label left; the caller closes them.

    A worker accepts it once its own control process is gone.
    """
    found = []
    pattern = f"@({re.escape(_prefix(label))}[0-9a-f]+)"
    for name in sorted({match[1].decode() for match in abstract_sockets.shown_names(pattern)}):
        try:
            found.append(abstract_sockets.connect(f"\0{name}"))
        except OSError:
            # It has just ended, or isn't a worker.
            continue
    return found


def worker_labels() -> set[str]:
    """Return the labels of proxies with workers here; other users may have made some up."""
    found = abstract_sockets.shown_names(f"@{_NAME}(?:/(?P<label>[A-Za-z0-9._~-]+))?#[0-9a-f]+")
    return {(match["label"] or b"").decode() for match in found}


def _prefix(label: str) -> str:
    return f"{_NAME}/{label}#" if label else f"{_NAME}#"
