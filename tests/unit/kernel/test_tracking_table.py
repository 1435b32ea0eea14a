from __future__ import annotations

from userspace_proxy.kernel.tracking_table import TrackingTable, read_table

STAT = """\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop
0000001e  00000000 00000000 00000000 00000000 00000000 00000000 0 0 0 0000000a 0
0000001e  00000000 00000000 00000000 00000000 00000000 00000000 0 0 0 00000006 0
"""


def test_a_node_that_tracks_nothing_has_no_table(tmp_path):
    assert read_table(tmp_path) == TrackingTable()


def test_the_table_is_read_from_the_kernels_files(tmp_path):
    sysctls, stat = tmp_path / "sys/net/netfilter", tmp_path / "thread-self/net/stat"
    for folder in (sysctls, stat):
        folder.mkdir(parents=True)
    (sysctls / "nf_conntrack_count").write_text("30\n")
    (sysctls / "nf_conntrack_max").write_text("262144\n")
    assert read_table(tmp_path) == TrackingTable(30, 262144, 0)
    (stat / "nf_conntrack").write_text(STAT)
    assert read_table(tmp_path) == TrackingTable(30, 262144, 16)
