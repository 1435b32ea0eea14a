"""Builds the site from docs/ into ``site/VERSION``: ``make site``.

    docs/, ARCHITECTURE.md, … ──▶ a copy whose links fit the site ──▶ zensical --strict ──▶ checked

Rule 1: a page is written for readers of the checkout. Its links to other files of the checkout
lead to REPOSITORY, or, without one, are left as text: no host is decided.
Rule 2: a dead link, a dead anchor, or something that another host would serve fails the build.
Rule 3: a build replaces its own version only. The folder ``site`` may contain older versions:
versions.json lists them for the site's selector, and ``site/index.html`` leads to the newest one.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from posixpath import basename, dirname, join, normpath, relpath

from packaging.version import Version

from userspace_proxy.version import __version__

from .site_links import problems

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "site"
ELSEWHERE = {"ARCHITECTURE.md": "architecture.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the site that aren't in docs/, by their paths in the checkout."""

DECISIONS = "decisions.md"
FILES = ("tests/tools/site.css", "userspace_proxy/status/static/icon-ok.svg")
"""What the settings refer to, besides pages: the style, and the icon of the status page."""

_LINK = re.compile(
    r"(?P<text>!?\[(?:[^\[\]]|\[[^\[\]]*\])*\])\((?P<path>[^()\s#:]+)(?P<anchor>#[^()\s]*)?\)"
)
_FENCE = re.compile(r"^\s*(```|~~~)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")
_ITEM = re.compile(r"(- |\d+\. )")


def repository_address(url: str, version: str) -> str:
    """Return the address below which a repository shows the files of a version.

    Args:
        url: The repository's own address; empty if it has none.
        version: A development version has no tag.
    """
    ref = "HEAD" if Version(version).is_devrelease else f"v{version}"
    return f"{url.rstrip('/')}/blob/{ref}/" if url else ""


def page_text(text: str, path: str, repository: str, titles: Mapping[str, str]) -> str:
    """Return a page as the site needs it.

    Args:
        text: The page, for readers of the checkout.
        path: Where it is in the checkout.
        repository: Where other files of the checkout are shown; empty: nowhere.
        titles: Titles of pages, by their places. A link whose text is a file's name shows them.
    """

    def fitted(link: re.Match[str]) -> str:
        target, anchor = normpath(join(dirname(path), link["path"])), link["anchor"] or ""
        words = link["text"]
        if place := place_of(target):
            if words in (f"[{target}]", f"[{basename(target)}]") and place in titles:
                words = f"[{titles[place]}]"
            return f"{words}({relpath(place, dirname(place_of(path)) or '.')}{anchor})"
        if repository:
            return f"{words}({repository}{target}{anchor})"
        return words[1:-1]

    lines, in_code, before = [], False, "\n"
    for line in text.splitlines(keepends=True):
        in_code ^= bool(_FENCE.match(line))
        if not in_code and _ITEM.match(line) and not (before[0].isspace() or _ITEM.match(before)):
            # Elsewhere a list may follow a paragraph without an empty line.
            lines.append("\n")
        lines.append(line if in_code else _LINK.sub(fitted, line))
        before = line
    return "".join(lines)


def place_of(path: str) -> str:
    """Return where a file of the checkout is on the site; empty if it isn't there.

    A missing file of docs/ has a place, too, where the link to it is dead.
    """
    if path == "docs/adr":
        return DECISIONS
    return ELSEWHERE.get(path) or (path[len("docs/") :] if path.startswith("docs/") else "")


def title_of(text: str) -> str:
    """Return the title of a page: its first line."""
    return text.partition("\n")[0].lstrip("# ")


def decisions_page(folder: Path) -> str:
    """Return the page that lists the decisions of a folder ``adr``, the newest first."""
    lines = ["# Decisions\n"]
    for file in sorted(folder.glob("[0-9]*.md"), reverse=True):
        title = title_of(file.read_text(encoding="utf-8"))
        lines.append(f"- [{title.removeprefix('ADR ')}](adr/{file.name})")
    return "\n".join(lines) + "\n"


def stage(root: Path, folder: Path, repository: str) -> None:
    """Write what the generator reads: the settings, and pages whose links fit the site."""
    docs = folder / "docs"
    shutil.copytree(root / "docs", docs)
    for path, place in ELSEWHERE.items():
        shutil.copy(root / path, docs / place)
    for path in FILES:
        shutil.copy(root / path, docs)
    shutil.copy(root / "mkdocs.yml", folder)
    (docs / DECISIONS).write_text(decisions_page(docs / "adr"), encoding="utf-8")
    paths = {place: path for path, place in ELSEWHERE.items()}
    texts = {
        file.relative_to(docs).as_posix(): file.read_text(encoding="utf-8")
        for file in docs.rglob("*.md")
    }
    titles = {place: title_of(text) for place, text in texts.items()}
    for place, text in texts.items():
        path = paths.get(place, f"docs/{place}")
        fitted = page_text(text, path, repository, titles)
        (docs / place).write_text(fitted, encoding="utf-8")


def build(root: Path, target: Path, repository: str) -> Iterator[str]:
    """Build one version into a folder, which is replaced; yield its problems.

    Nothing is replaced if there is a problem.
    """
    with tempfile.TemporaryDirectory(prefix="site-") as name:
        folder = Path(name)
        stage(root, folder, repository)
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        done = subprocess.run(
            [*command, "-f", "mkdocs.yml"], cwd=folder, capture_output=True, text=True
        )
        if done.returncode != 0:
            # It prints the problems, and raises an exception because there are some.
            text = f"{done.stdout}{done.stderr.partition('Traceback')[0]}"
            yield f"zensical:\n{_COLOUR.sub('', text)}"
            return
        found = list(problems(folder / "site"))
        yield from found
        if not found:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder / "site", target)


def write_versions(site: Path) -> None:
    """Write the list of all versions in a folder, and the page that leads to the newest."""
    names = (file.parent.name for file in site.glob("*/index.html"))
    versions = sorted(names, key=Version, reverse=True)
    listed = [{"version": each, "title": each, "aliases": []} for each in versions]
    (site / "versions.json").write_text(json.dumps(listed, indent=1) + "\n")
    newest = html.escape(versions[0])
    (site / "index.html").write_text(
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        "<title>userspace-proxy</title>\n"
        f'<meta http-equiv="refresh" content="0; url={newest}/">\n'
        f'<p><a href="{newest}/index.html">userspace-proxy {newest}</a></p>\n</html>\n'
    )


def main() -> int:
    """Build the site of this checkout; return the exit status."""
    target = SITE / __version__
    repository = repository_address(os.environ.get("REPOSITORY", ""), __version__)
    found = list(build(ROOT, target, repository))
    for problem in found:
        sys.stderr.write(f"error: {problem}\n")
    if not found:
        write_versions(SITE)
        sys.stdout.write(f"{target / 'index.html'}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
