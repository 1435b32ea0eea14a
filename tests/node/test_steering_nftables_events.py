"""Who is told of what by a real kernel: our changes, those of others, and lost events."""

from __future__ import annotations

from contextlib import closing

import pytest
import steering_nodes as nodes

from userspace_proxy.steering.nftables.events import TableWatch, list_tables

pytestmark = pytest.mark.netns


@pytest.fixture
def node():
    """The test's thread stands in it."""
    nodes.need_namespaces()
    net = nodes.Net("node")
    with net:
        yield net
    net.close()


def test_events_of_our_own_changes_and_of_other_tables_are_not_ours_to_mind(node):
    with closing(TableWatch("userspace-proxy")) as watch:
        with watch.own_change():
            node.run("nft add table inet userspace-proxy")
        node.run("nft add table inet other; nft add table ip userspace-proxy")
        assert not watch.is_touched()
        with watch.own_change():
            node.run("nft delete table inet userspace-proxy")
        assert not watch.is_touched()
        node.run("nft add table inet userspace-proxy")
        assert watch.is_touched()
        watch.settle()
        assert not watch.is_touched()


def test_when_others_change_something_in_the_course_of_our_change_it_counts_as_touched(node):
    with closing(TableWatch("userspace-proxy")) as watch:
        with watch.own_change():
            node.run("nft add table inet userspace-proxy; nft add table inet other")
        assert watch.is_touched()


def test_where_events_were_lost_the_table_counts_as_touched(node):
    with closing(TableWatch("userspace-proxy")) as watch:
        node.run("""
            nft 'add table ip other; add set ip other many { type mark; }'
            (echo 'add element ip other many {'; seq -s, 1 10000; echo '}') | nft -f -""")
        assert watch.is_touched()
        watch.settle()
        assert not watch.is_touched()


def test_tables_are_listed_without_the_library(node):
    assert list_tables() == []
    names = [f"table-{number}" for number in range(500)]
    node.run(f"nft '{';'.join(f'add table inet {name}' for name in names)}; add table ip other'")
    assert sorted(list_tables()) == sorted(names)
