import errno

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.nf_tables.ruleset import NftablesError, Ruleset, query_errors
from userspace_proxy.kernel.nf_tables.writer import (
    DELETE_ELEMENT,
    DELETE_TABLE,
    NEW_RULE,
    NEW_TABLE,
)


@pytest.mark.parametrize(
    ("code", "kind", "sentence"),
    [
        (
            errno.ENOENT,
            DELETE_ELEMENT,
            "cannot change nftables: No such file or directory (delete element)",
        ),
        (
            errno.ENOENT,
            NEW_RULE,
            "cannot change nftables: No such file or directory (add rule) (modprobe -a nft_nat "
            "nft_redir nft_ct nft_reject_inet, or use another steering)",
        ),
        (
            errno.EPERM,
            0,
            "cannot change nftables: Operation not permitted (run as root or grant NET_ADMIN, or "
            "run with --steering=none)",
        ),
    ],
)
def test_an_nftables_error_names_the_rejected_message_and_a_remedy(code, kind, sentence):
    error = NftablesError(code, kind)
    assert str(error) == sentence
    assert error.code == code


@pytest.mark.parametrize(
    ("code", "kind", "is_lasting"),
    [
        pytest.param(errno.EOPNOTSUPP, NEW_TABLE, True, id="no-such-family"),
        pytest.param(errno.ENOENT, NEW_RULE, True, id="no-such-expression"),
        pytest.param(errno.ENOENT, DELETE_ELEMENT, False, id="gone"),
        pytest.param(errno.EBUSY, DELETE_TABLE, False, id="busy"),
        pytest.param(errno.ENOMEM, NEW_RULE, False, id="shortage"),
    ],
)
def test_only_errors_about_unsupported_features_are_permanent(code, kind, is_lasting):
    assert NftablesError(code, kind).is_lasting is is_lasting


def test_a_kernel_without_nftables_is_an_error_naming_the_module():
    with pytest.raises(SteeringError) as raised, query_errors():
        raise OSError(errno.EINVAL, "Invalid argument")
    assert str(raised.value) == (
        "cannot query nftables: Invalid argument (modprobe nf_tables, or use another steering)"
    )


def test_only_the_first_elements_of_a_large_set_are_read(node, tmp_path):
    rules = tmp_path / "rules"
    ports = ", ".join(map(str, range(1, 10_001)))
    rules.write_text(
        f"table ip big {{ set many {{ type inet_service; elements = {{ {ports} }}; }}\n"
        "set few { type inet_service; elements = { 22, 80 }; }; }\n"
    )
    node.run(f"nft -f {rules}")
    with Ruleset() as ruleset:
        assert 200 < len(ruleset.first_elements(2, "big", "many", 200)) < 2000
        few = ruleset.first_elements(2, "big", "few", 200)
    assert sorted(one.key for one in few) == [b"\0\x16", b"\0\x50"]
