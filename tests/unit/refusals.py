"""The errors of parsers, for tests of where they are reported; parsers' tests compare the text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from userspace_proxy.errors import UserspaceProxyError


def why(read: Callable[..., object], *args: object) -> str:
    """Return the message with which a parser or check rejects these arguments."""
    with pytest.raises((UserspaceProxyError, ValueError)) as caught:
        read(*args)
    return str(caught.value)
