from userspace_proxy.nodes.dashboard.look import PageRequest
from userspace_proxy.nodes.dashboard.markup import render

from .clusters import calm_cluster, look_at

HOSTILE = '<script>alert(1)</script>\x1b[31m\u202e"'
HEAD = {"title": "t", "level": "ok", "heading": "h", "verdict": "v"}


def a_page(words):
    look = look_at(calm_cluster())
    return render("absent", look=look, asked=PageRequest("/x"), words=words, **HEAD).decode()


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
