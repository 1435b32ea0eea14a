import errno

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.nf_tables.ruleset import NftablesError, query_errors


@pytest.mark.parametrize(
    ("code", "what", "sentence"),
    [
        pytest.param(
            errno.ENOENT,
            "delete element",
            "cannot change nftables: No such file or directory (delete element)",
            id="gone",
        ),
        pytest.param(
            errno.ENOENT,
            "add rule",
            "cannot change nftables: No such file or directory (add rule) (modprobe nft_nat "
            "nft_redir nft_ct nft_reject_inet, or use another steering)",
            id="no-module",
        ),
        pytest.param(
            errno.EPERM,
            "",
            "cannot change nftables: Operation not permitted (run as root or grant NET_ADMIN, or "
            "run with --steering=none)",
            id="no-right",
        ),
    ],
)
def test_a_refusal_states_what_was_refused_and_a_remedy(code, what, sentence):
    error = NftablesError(code, what)
    assert str(error) == sentence
    assert error.code == code


def test_a_kernel_without_nftables_is_an_error_that_names_the_module():
    with pytest.raises(SteeringError) as raised, query_errors():
        raise OSError(errno.EINVAL, "Invalid argument")
    assert str(raised.value) == (
        "cannot query nftables: Invalid argument (modprobe nf_tables, or use another steering)"
    )
