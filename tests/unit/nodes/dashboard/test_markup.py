from userspace_proxy.facts import Level
from userspace_proxy.status.selection import Selection
from userspace_proxy_kubectl.nodes.dashboard.markup import PageHead, cut, page_of, render

from .clusters import calm_cluster, look_at

HOSTILE = '<script>alert(1)</script>\x1b[31m\u202e"'


def a_page(words):
    look, asked = look_at(calm_cluster()), Selection(path="/x")
    parts = render("absent", PageHead(look, asked, "t", Level.OK, "h", words))
    return page_of(parts, asked).decode()


def test_text_from_agents_is_escaped_but_stays_visible():
    page = a_page(HOSTILE)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u001b[31m\\u202e&#34;" in page


def test_long_text_is_truncated_on_a_page():
    assert len(a_page("x" * 1_000_000)) < 10_000


def test_a_lone_surrogate_is_escaped_as_in_json():
    assert "a\\ud800b" in a_page("a\ud800b")


def test_the_page_of_a_healthy_cluster_has_the_ok_icon():
    assert 'class="icon ok"' in a_page("w")


def test_cut_truncates_only_long_text():
    assert cut("a" * 100_000).endswith("a…")
    assert len(cut("a" * 100_000)) < 3_000
    assert cut("short") == "short"
