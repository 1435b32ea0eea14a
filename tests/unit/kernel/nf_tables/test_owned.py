from __future__ import annotations

from contextlib import closing

import pytest

from userspace_proxy.kernel.nf_tables import NftablesError, TableWriter, list_tables, writer
from userspace_proxy.kernel.nf_tables.nft_table import NftTable
from userspace_proxy.kernel.nf_tables.owned import OwnedTable, OwnerSockets


def fill(table: TableWriter) -> None:
    table.add_chain("chain")


def test_an_owned_table_can_be_changed_only_by_its_owner_and_disappears_with_its_owner(node):
    with closing(OwnedTable("ours", fill)) as table:
        assert [table.put_right(), table.put_right()] == [False, False]
        node.run("nft flush ruleset")
        assert "chain chain" in node.run("nft list table inet ours")
        with closing(NftTable("ours")) as other, pytest.raises(NftablesError):
            other.remove()
    assert list_tables() == []


def test_a_copied_socket_passes_table_ownership_to_the_next_process(node):
    kept = {}
    owners = OwnerSockets()
    first = OwnedTable("ours", fill, owners=owners)
    first.put_right()
    owners.follow(lambda name, sock: kept.update({name: sock.dup()}))
    # The kernel would close this socket if the first process died.
    first._table.close()
    assert list_tables() == ["ours"]
    later = OwnerSockets(kept)
    with closing(OwnedTable("ours", fill, owners=later)) as second:
        assert kept == {}
        later.follow(lambda name, sock: kept.update({name: sock.dup()}))
        assert not second.put_right()
        assert "chain chain" in node.run("nft list table inet ours")
        assert list(kept) == ["1/ours"]
    # Workers still hold copies of the socket, but closing the OwnedTable has deleted the table.
    assert list_tables() == []
    for sock in kept.values():
        sock.close()


def test_a_leftover_table_is_replaced_by_an_owned_table(node):
    node.run("nft add table inet ours; nft add chain inet ours old")
    with closing(OwnedTable("ours", fill)) as table:
        table.put_right()
        assert "old" not in node.run("nft list table inet ours")


def test_an_owned_table_applies_changed_contents_only_after_rewrite(node):
    chains = ["one"]
    with closing(OwnedTable("ours", lambda table: list(map(table.add_chain, chains)))) as table:
        table.put_right()
        chains[:] = ["other"]
        assert not table.put_right()
        assert "chain one" in node.run("nft list table inet ours")
        table.rewrite()
        assert not table.put_right()
        assert "chain other" in node.run("nft list table inet ours")
        assert "chain one" not in node.run("nft list table inet ours")


def test_changes_by_other_programs_are_repaired_without_owner_support(node, monkeypatch):
    monkeypatch.setattr(writer, "TABLE_OWNED", 1 << 31)
    with closing(OwnedTable("ours", fill)) as table:
        assert not table.put_right()
        for harm in ("flush ruleset", "add chain inet ours more"):
            node.run(f"nft {harm}")
            assert [table.put_right(), table.put_right()] == [True, False]
    assert list_tables() == ["ours"]


def test_requiring_an_owned_table_fails_on_a_kernel_without_owner_support(node, monkeypatch):
    monkeypatch.setattr(writer, "TABLE_OWNED", 1 << 31)
    table = OwnedTable("ours", fill, needs_owner=True)
    with closing(table), pytest.raises(NftablesError):
        table.put_right()
    assert list_tables() == []
