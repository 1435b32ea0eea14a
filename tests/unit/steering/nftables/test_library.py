"""What the library says, as errors with the way out."""

from __future__ import annotations

import errno

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.steering.nftables import library
from userspace_proxy.steering.nftables.library import NftablesError, first_cause


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        pytest.param(
            "Error: Could not process rule: File exists\nadd element …\n^^^^",
            "File exists",
            id="the-kernel",
        ),
        pytest.param(
            "/dev/stdin:1:5-7: Error: syntax error, unexpected newline\n",
            "syntax error, unexpected newline",
            id="the-parser",
        ),
        pytest.param(
            "netlink: Error: Could not process rule: Message too long\n",
            "Message too long",
            id="the-socket",
        ),
        pytest.param("", "libnftables gave no reason", id="nobody"),
    ],
)
def test_the_cause_is_the_first_error_alone(said, cause):
    assert first_cause(said) == cause


@pytest.mark.parametrize(
    ("cause", "code", "message"),
    [
        pytest.param(
            "Operation not permitted",
            errno.EPERM,
            "cannot change nftables: Operation not permitted "
            "(run as root or grant NET_ADMIN, or run with --steering=none)",
            id="no-right",
        ),
        pytest.param(
            "No such file or directory",
            errno.ENOENT,
            "cannot change nftables: No such file or directory",
            id="no-table",
        ),
        pytest.param("syntax error", 0, "cannot change nftables: syntax error", id="no-number"),
    ],
)
def test_an_error_says_what_to_do(cause, code, message):
    error = NftablesError(cause)
    assert (error.code, str(error)) == (code, message)


def test_a_missing_library_is_an_error_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(library, "LIBRARY", "libnftables.so.0")
    library.load.cache_clear()
    with pytest.raises(SteeringError) as caught:
        library.load()
    library.load.cache_clear()
    assert str(caught.value) == (
        "cannot load libnftables: libnftables.so.0: cannot open shared object file: "
        "No such file or directory (apt install libnftables1, or run with --steering=iptables)"
    )
