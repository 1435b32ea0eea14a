import pytest

from userspace_proxy.causes.cause import CauseCode, as_read
from userspace_proxy.facts import Level
from userspace_proxy_kubectl.nodes.findings import NodeFinding
from userspace_proxy_kubectl.nodes.words import (
    format_finding,
    on_nodes,
)

from .words import WORDS, page


def test_the_texts_about_all_nodes_match_the_recorded_page():
    recorded = WORDS.read_text().splitlines()
    assert [*page()] == recorded, "if that is intended: python -m tests.unit.nodes.words"


def test_an_agents_text_is_truncated():
    cause = as_read(CauseCode(""), "x" * 10_000)
    assert len(format_finding(NodeFinding(Level.TROUBLE, cause))) < 500


@pytest.mark.parametrize(
    ("nodes", "total", "words"),
    [
        (["a"], 1, "on a"),
        (["a"], 9, "on a (1 of 9)"),
        ([str(n) for n in range(2_000)], 3_000, "on 0, 1 and 1,998 others (2,000 of 3,000)"),
    ],
)
def test_nodes_in_a_text_are_named_or_counted(nodes, total, words):
    assert on_nodes(nodes, total) == words
