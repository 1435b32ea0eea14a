from __future__ import annotations

from userspace_proxy.check.nft_offers import (
    nft_lacks_for_bridges,
    nft_lacks_for_replies,
)


def test_this_kernel_lacks_nothing_and_checking_it_changes_nothing(node):
    lacks = (nft_lacks_for_replies, nft_lacks_for_bridges)
    assert [lack() for lack in lacks] == [""] * 2
    assert node.run("nft list tables") == ""
