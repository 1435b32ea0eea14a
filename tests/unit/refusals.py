"""What a reader says of a wrong value, for tests of where it is said: its words are its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from userspace_proxy.errors import UserspaceProxyError


def why(read: Callable[..., object], *args: object) -> str:
    """Return what a reader or check says as it refuses these arguments."""
    with pytest.raises((UserspaceProxyError, ValueError)) as caught:
        read(*args)
    return str(caught.value)
