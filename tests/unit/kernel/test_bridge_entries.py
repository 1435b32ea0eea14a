from __future__ import annotations

from contextlib import closing

from userspace_proxy.kernel.bridge_entries import BridgeEntries

MAC = "06:00:00:00:00:01"


def test_entries_are_added_only_to_existing_bridges_and_can_be_removed(node):
    node.run("ip link add br0 type bridge; ip link set br0 up")
    number = int(node.run("ip -o link show br0").partition(":")[0])
    with closing(BridgeEntries(bytes.fromhex(MAC.replace(":", "")))) as entries:
        assert entries.put_right([number, 9999]) == {number}
        assert entries.put_right([number]) == {number}
        assert MAC in node.run("bridge fdb show br br0")
        entries.remove()
        entries.remove()
    assert MAC not in node.run("bridge fdb show br br0")
