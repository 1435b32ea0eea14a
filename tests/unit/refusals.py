"""The errors of a reader, for tests of their place; the reader's own tests compare the text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from userspace_proxy.errors import UserspaceProxyError


def why(read: Callable[..., object], *args: object) -> str:
    """Return the message with which a reader or check rejects these arguments."""
    with pytest.raises((UserspaceProxyError, ValueError)) as caught:
        read(*args)
    return str(caught.value)
