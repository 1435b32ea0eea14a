from __future__ import annotations

import pytest

from userspace_proxy.kernel.legacy_options import (
    GET_INFO,
    GET_REVISION_MATCH,
    IPV6_GET_REVISION_MATCH,
    ask_legacy,
    info_of,
    revision_of,
)


@pytest.mark.parametrize("version", [4, 6])
def test_a_table_info_contains_its_name_and_a_nonexistent_table_is_an_error(node, version):
    assert ask_legacy(version, GET_INFO, info_of("nat")).startswith(b"nat\0")
    with pytest.raises(FileNotFoundError):
        ask_legacy(version, GET_INFO, info_of("other"))


@pytest.mark.parametrize(
    ("version", "option"), [(4, GET_REVISION_MATCH), (6, IPV6_GET_REVISION_MATCH)]
)
def test_a_match_that_the_kernel_lacks_is_an_error(node, version, option):
    assert ask_legacy(version, option, revision_of(b"tcp"))
    with pytest.raises(FileNotFoundError):
        ask_legacy(version, option, revision_of(b"other"))
