"""Writes the files that are generated from code: ``make docs``. A test finds outdated files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.faults.bounds import rows
from tests.kernels import page as kernels_page

from . import alerts, api_pages, chart, guide_page, record_pages, settings_pages
from .settings_pages import DOCS

FILES: Mapping[Path, Callable[[str], str]] = {
    DOCS / "configuration.md": settings_pages.configuration_page,
    api_pages.PAGE: api_pages.make_page,
    api_pages.SCHEMA: lambda _: api_pages.make_schema_text(),
    record_pages.PAGE: record_pages.make_page,
    kernels_page.PAGE: kernels_page.with_needs,
    DOCS / "security.md": rows.with_bounds,
    chart.METADATA: chart.metadata,
    chart.SCHEMA: chart.schema,
    chart.DEFAULTS: lambda _: chart.defaults(),
    alerts.RULES: alerts.with_runbooks,
    guide_page.PAGE: lambda _: guide_page.render(guide_page.SOURCE.read_text(encoding="utf-8")),
}
"""The function that returns a file's new text from its current text; some replace only a part."""


def write(files: Mapping[Path, Callable[[str], str]]) -> None:
    """Rewrite files, each given its current text."""
    for path, make in files.items():
        path.write_text(make(path.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    write(FILES)


if __name__ == "__main__":
    main()
