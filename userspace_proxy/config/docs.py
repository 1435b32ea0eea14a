"""Generates the tables of docs/configuration.md from the table of settings.

``python -m userspace_proxy.config.docs`` prints them; with the page's path it puts them
into the page. A test compares the page with what this generates.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .ignored import FIELDS, FLAGS, Ignored
from .settings import TABLE, Settings
from .table import Group, Setting

BEGIN = "<!-- made by python -m userspace_proxy.config.docs: begin -->"
END = "<!-- made by python -m userspace_proxy.config.docs: end -->"


def render_tables() -> str:
    """Return all tables as Markdown, between the two marks, with a line end at the end."""
    parts = [BEGIN, ""]
    for group in Group:
        parts += [f"### {group}", "", *_settings(group), ""]
    parts += ["## kube-proxy's flags that are ignored", "", *_ignored(FLAGS, "--"), ""]
    parts += ["## KubeProxyConfiguration's fields that are ignored", "", *_ignored(FIELDS, ""), ""]
    return "\n".join([*parts, END, ""])


def put_into(page: str) -> str:
    """Return a page with the tables in place of what stands between its marks.

    Raises:
        ValueError: The page has no markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(f"{END}\n")
    if not begin or not end:
        raise ValueError("the page has no markers")
    return f"{before}{render_tables()}{after}"


def _settings(group: Group) -> Iterator[str]:
    yield "| flag | in the file | value | default | what it does |"
    yield "|---|---|---|---|---|"
    for name, row in TABLE.items():
        if row.group is group:
            cells = (_flags(row), _fields(row), f"`{row.kind.name}`", _default(name, row))
            yield f"| {' | '.join(_cell(cell) for cell in (*cells, _meaning(row)))} |"


def _flags(row: Setting) -> str:
    return ", ".join(f"`--{flag}`" for flag in (row.flag, *row.aliases))


def _fields(row: Setting) -> str:
    ours = f"`{row.own_field}` (ours)" if row.own_field else ""
    return ", ".join(part for part in (row.kube_field and f"`{row.kube_field}`", ours) if part)


def _default(name: str, row: Setting) -> str:
    shown = row.shown_default or f"`{row.kind.write_text(getattr(Settings(), name))}`"
    return f"{shown}: {row.why}" if row.why else shown


def _meaning(row: Setting) -> str:
    return f"{row.help}. **No effect**: {row.no_effect}" if row.no_effect else row.help


def _ignored(rows: Mapping[str, Ignored], prefix: str) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for name, row in rows.items():
        names.setdefault(row.reason, []).append(f"`{prefix}{name}`")
    yield "| ignored | because |"
    yield "|---|---|"
    for reason, ignored in names.items():
        yield f"| {', '.join(ignored)} | {_cell(reason)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _main(words: Sequence[str]) -> None:
    for word in words:
        page = Path(word)
        page.write_text(put_into(page.read_text(encoding="utf-8")), encoding="utf-8")
    if not words:
        sys.stdout.write(render_tables())


if __name__ == "__main__":
    _main(sys.argv[1:])
