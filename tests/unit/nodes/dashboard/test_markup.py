from userspace_proxy.facts import Level
from userspace_proxy.status.selection import Selection
from userspace_proxy_kubectl.nodes.dashboard.markup import PageHead, cut, page_of, render

from .clusters import calm_cluster, look_at

HOSTILE = '<script>alert(1)</script>\x1b[31m\u202e"'


def a_page(words):
    look, asked = look_at(calm_cluster()), Selection(path="/x")
    parts = render("absent", PageHead(look, asked, "t", Level.OK, "h", words))
    return page_of(parts, asked).decode()


def test_text_of_agents_is_neither_markup_nor_hidden():
    page = a_page(HOSTILE)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u001b[31m\\u202e&#34;" in page


def test_long_text_costs_no_page():
    assert len(a_page("x" * 1_000_000)) < 10_000


def test_half_a_surrogate_pair_is_written_as_in_json():
    assert "a\\ud800b" in a_page("a\ud800b")


def test_marks_of_a_proxys_page_are_used():
    assert 'class="icon ok"' in a_page("w")


def test_long_texts_are_cut():
    assert cut("a" * 100_000).endswith("a…")
    assert len(cut("a" * 100_000)) < 3_000
    assert cut("short") == "short"
