"""A dead link, a dead anchor, or something of another host is found in a built site."""

from __future__ import annotations

from pathlib import Path

import pytest

from .site_links import problems

GOOD = """\
<link rel="stylesheet" href="style.css"><link rel="canonical" href="https://site.example/">
<h1 id="top">A page</h1> <img src="images/page.png"> <img src="data:image/png;base64,AAAA">
<a href="#top">top</a> <a href="adr/1.html#why">why</a> <a href="./">home</a>
<a href="https://kubernetes.io/">another site</a> <a href="mailto:team@example.com">mail</a>
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "page.png").touch()
    (tmp_path / "style.css").write_text("/* as url(https://a.example/) */ a { color: red }")
    (tmp_path / "adr").mkdir()
    (tmp_path / "adr" / "1.html").write_text('<h2 id="why">Why</h2> <a href="../index.html">up</a>')
    (tmp_path / "index.html").write_text(GOOD)
    return tmp_path


def test_a_good_site_has_no_problem(site: Path) -> None:
    assert list(problems(site)) == []


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<a href="gone.html">x</a>', "gone.html doesn't exist"),
        ('<a href="#gone">x</a>', "#gone has no such anchor"),
        ('<a href="adr/1.html#gone">x</a>', "adr/1.html#gone has no such anchor"),
        ('<img src="https://a.example/1.png">', "https://a.example/1.png is loaded from another"),
        ('<script src="//a.example/1.js"></script>', "//a.example/1.js is loaded from another"),
        (
            '<link rel="icon preload" href="http://a.example/1">',
            "http://a.example/1 is loaded from another",
        ),
    ],
)
def test_what_is_wrong_is_found(site: Path, html: str, problem: str) -> None:
    (site / "index.html").write_text(GOOD + html)
    (found,) = problems(site)
    assert found.startswith(f"index.html: {problem}")


@pytest.mark.parametrize("style", ["@import url(//a.example/a.css)", "a { b: url('http://a/') }"])
def test_a_style_that_loads_from_another_host_is_found(site: Path, style: str) -> None:
    (site / "style.css").write_text(style)
    assert list(problems(site)) == ["style.css: something is loaded from another host"]
