"""Generates the tables of docs/in-tests.md about a failed test's record, from its types.

Parts that the record shares with the status link to docs/api.md.
"""

from __future__ import annotations

import re

from userspace_proxy_testing import decisions, http_serving, record

from .api_pages import described, sections
from .markdown import replace_part
from .settings_pages import DOCS

PAGE = DOCS / "in-tests.md"
_PARTS = (
    record.RecordedTest,
    record.RecordedFailure,
    record.RecordedFixture,
    record.RecordedService,
    record.RecordedBackend,
    http_serving.SeenRequest,
    decisions.Decision,
    decisions.FailedDial,
)
"""The record and the types that only the record uses, from the outermost to the innermost."""


def make_tables() -> str:
    """Return a table of the fields of each part of a record."""
    names = [part.__name__ for part in _PARTS]
    _, parts = described(_PARTS, record, decisions, http_serving)
    own = {name.lower() for name in names}
    return re.sub(
        r"\]\(#(\w+)\)",
        lambda found: found[0] if found[1] in own else f"](api.md#{found[1]})",
        sections(parts, names),
    )


def make_page(page: str) -> str:
    """Return docs/in-tests.md with up-to-date tables."""
    return replace_part(page, make_tables())
