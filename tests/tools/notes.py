"""Prints a version's section of CHANGELOG.md, for the page of a release.

Run it as ``python -m tests.tools.notes VERSION`` (0.1.0 or v0.1.0), or with ``--tag=v0.1.0`` to
check first that the tag has this checkout's version. With a tag, links point to the tag's files,
because relative links don't work on a release's page.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from userspace_proxy import __version__

from .addresses import links_from, repository, with_links

CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"


class NoNotesError(Exception):
    """There are no notes for this release; the message states the reason."""


def notes(changelog: str, version: str) -> str:
    """Return the lines between the heading of a version and the next heading.

    Args:
        version: Without a leading ``v``.

    Raises:
        NoNotesError: There is no heading for this version, or no text below it.
    """
    pattern = rf"^## {re.escape(version)}(?: - \S+)?$\n(.*?)(?=^## |\Z)"
    found = re.search(pattern, changelog, re.MULTILINE | re.DOTALL)
    if found is None or not found[1].strip():
        raise NoNotesError(f"CHANGELOG.md says nothing about {version}")
    return f"{found[1].strip()}\n"


def version_of(tag: str, current: str) -> str:
    """Return the version that a tag releases.

    Raises:
        NoNotesError: The tag isn't ``v`` and the current version.
    """
    if tag != f"v{current}":
        raise NoNotesError(f"the tag is {tag!r}, but this checkout's version is {current}")
    return current


def main(words: Sequence[str]) -> int:
    """Print the notes; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.notes")
    parser.add_argument("version", nargs="?", default=__version__)
    parser.add_argument("--tag")
    given = parser.parse_args(words)
    try:
        version = given.version.removeprefix("v")
        if given.tag is not None:
            version = version_of(given.tag, __version__)
        text = notes(CHANGELOG.read_text(), version)
        if given.tag is not None:
            text = with_links(text, links_from(CHANGELOG.name, repository, given.tag))
    except NoNotesError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
