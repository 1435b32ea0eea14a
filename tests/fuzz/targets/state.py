"""Target for the saved state on disk; the first byte selects whether the rest is compressed."""

from __future__ import annotations

import gzip

from userspace_proxy.cluster.encoding import StateOwner, decode_state, encode_state
from userspace_proxy.errors import InputError

OWNER = StateOwner("manifests", "/etc/services", "node-1", "")


def check_last_state(data: bytes) -> None:
    """Check that a valid state is equal after encoding, or that the problem is one line."""
    content = data[1:] if data[:1] == b"\0" else gzip.compress(data[1:])
    try:
        snapshot = decode_state(content, OWNER)
    except InputError as exc:
        problem = str(exc)
    else:
        assert decode_state(encode_state(snapshot, OWNER), OWNER) == snapshot
        return
    assert "\n" not in problem
