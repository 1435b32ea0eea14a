from __future__ import annotations

import pytest

from userspace_proxy.kernel.legacy_options import GET_INFO, ask_legacy, info_of


@pytest.mark.parametrize("version", [4, 6])
def test_a_table_info_contains_its_name_and_a_nonexistent_table_is_an_error(node, version):
    assert ask_legacy(version, GET_INFO, info_of("nat")).startswith(b"nat\0")
    with pytest.raises(FileNotFoundError):
        ask_legacy(version, GET_INFO, info_of("other"))
