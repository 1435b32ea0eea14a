"""Builds the site from docs/ into ``site/VERSION``: ``make site``.

    docs/, ARCHITECTURE.md, … ──▶ a copy whose links fit the site ──▶ zensical --strict ──▶ checked

Rule 1: pages are written for readers of the checkout. On the site, links to other files of the
checkout point to the repository, at the tag of the version.
Rule 2: a dead link, a dead anchor, or a resource on another host fails the build.
Rule 3: a build replaces only its own version. The folder ``site`` may contain older versions:
versions.json lists them for the site's selector, and ``site/index.html`` redirects to the newest
version.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from posixpath import basename, dirname, join, normpath, relpath

from packaging.version import Version

from userspace_proxy.version import __version__

from .addresses import LinksFrom, links_from, outside_fences, repository, tag_of, with_links
from .site_links import problems

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "site"
DECISIONS = "decisions.md"
ELSEWHERE = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "docs/adr/README.md": DECISIONS,
}
"""Pages with another path on the site than in docs/, by their paths in the checkout."""

FILES = ("tests/tools/site.css", "userspace_proxy/status/static/icon-ok.svg")
"""Files, besides pages, that the settings name: the style, and the status page's icon."""

_FILE_LINK = re.compile(r"\[(?P<text>[^\[\]]+)\]\((?P<path>[^()\s#:]+)(?P<anchor>#[^()\s]*)?\)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")
_ITEM = re.compile(r"(- |\d+\. )")


def page_text(
    text: str,
    path: str,
    links: LinksFrom,
    titles: Mapping[str, str],
) -> str:
    """Return a page in the site's form.

    Args:
        text: The page, for readers of the checkout.
        path: Its path in the checkout.
        links: Returns, for a page, a function that makes links to other files absolute.
        titles: Titles of pages by path, which replace file names as texts of links.
    """
    elsewhere, folder = links(path), dirname(path)

    def fitted(link: str) -> str:
        file, mark, anchor = link.partition("#")
        place = place_of(normpath(join(folder, file))) if file else ""
        if not file:
            return link
        if not place:
            return elsewhere(link)
        return f"{relpath(place, dirname(place_of(path)) or '.')}{mark}{anchor}"

    def titled(link: re.Match[str]) -> str:
        target = normpath(join(folder, link["path"]))
        place = place_of(target)
        if link["text"] not in (target, basename(target)) or place not in titles:
            return link[0]
        return f"[{titles[place]}]({link['path']}{link['anchor'] or ''})"

    text = outside_fences(text, lambda part: _FILE_LINK.sub(titled, _with_blank_lines(part)))
    return with_links(text, fitted)


def _links(page: str) -> Callable[[str], str]:
    return links_from(page, repository, tag_of(__version__))


def _with_blank_lines(part: str) -> str:
    """Return a part of a page with an empty line before each list, as the generator requires."""
    lines, before = [], "```"
    for number, line in enumerate(part.splitlines(keepends=True)):
        if _ITEM.match(line) and not (before[0].isspace() or _ITEM.match(before)):
            lines.append("\n")
        lines.append(line)
        # A part after a code block begins with the newline of the closing fence, which isn't an
        # empty line.
        if number or line != "\n":
            before = line
    return "".join(lines)


def place_of(path: str) -> str:
    """Return a file's path on the site; empty if the file isn't on the site.

    A missing file of docs/ also has a path, so that the dead link is detected.
    """
    if path == "docs/adr":
        return DECISIONS
    return ELSEWHERE.get(path) or (path[len("docs/") :] if path.startswith("docs/") else "")


def title_of(text: str) -> str:
    """Return the title of a page: its first line."""
    return text.partition("\n")[0].lstrip("# ")


def stage(root: Path, folder: Path) -> None:
    """Write the generator's input: the settings, and pages with links for the site."""
    docs = folder / "docs"
    shutil.copytree(root / "docs", docs)
    for path, place in ELSEWHERE.items():
        shutil.copy(root / path, docs / place)
        # Remove the copy at the original path, if the page is in docs/.
        (folder / path).unlink(missing_ok=True)
    for path in FILES:
        shutil.copy(root / path, docs)
    shutil.copy(root / "mkdocs.yml", folder)
    paths = {place: path for path, place in ELSEWHERE.items()}
    texts = {
        file.relative_to(docs).as_posix(): file.read_text(encoding="utf-8")
        for file in docs.rglob("*.md")
    }
    titles = {place: title_of(text) for place, text in texts.items()}
    for place, text in texts.items():
        path = paths.get(place, f"docs/{place}")
        fitted = page_text(text, path, _links, titles)
        (docs / place).write_text(fitted, encoding="utf-8")


def build(root: Path, target: Path) -> Iterator[str]:
    """Build one version into a folder, which is replaced; yield its problems.

    Nothing is replaced if there is a problem.
    """
    with tempfile.TemporaryDirectory(prefix="site-") as name:
        folder = Path(name)
        stage(root, folder)
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        done = subprocess.run(
            [*command, "-f", "mkdocs.yml"], cwd=folder, capture_output=True, text=True
        )
        if done.returncode != 0:
            # zensical prints the problems; its exception only reports that there are some.
            text = f"{done.stdout}{done.stderr.partition('Traceback')[0]}"
            yield f"zensical:\n{_COLOUR.sub('', text)}"
            return
        found = list(problems(folder / "site"))
        yield from found
        if not found:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder / "site", target)


def write_versions(site: Path) -> None:
    """Write the list of all versions in a folder, and a page that redirects to the newest."""
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
    found = list(build(ROOT, target))
    for problem in found:
        sys.stderr.write(f"error: {problem}\n")
    if not found:
        write_versions(SITE)
        sys.stdout.write(f"{target / 'index.html'}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
