"""Provides parser errors for tests of reports; the parsers' own tests compare their text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from userspace_proxy.errors import UserspaceProxyError


def why(read: Callable[..., object], *args: object) -> str:
    """Return the error message of a parser or check that rejects these arguments."""
    with pytest.raises((UserspaceProxyError, ValueError)) as caught:
        read(*args)
    return str(caught.value)
