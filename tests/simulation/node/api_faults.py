"""Faults in the next responses of a simulated API server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from userspace_proxy_testing.fakes.api_objects import Object


@dataclass(eq=False, slots=True)
class Cut:
    """An abort of one of the next responses."""

    after_bytes: int = 0
    resource: str = ""
    """The resource whose responses count; empty for any."""
    is_clean: bool = False
    """Whether the response ends as if it were complete."""
    skip: int = 0
    """The number of responses for that resource before the fault."""
    compacts: bool = False
    """Whether, instead, history is compacted when the request arrives."""
    meanwhile: Callable[[], object] | None = None
    """Called before the fault."""


@dataclass(frozen=True, slots=True)
class OldEvent:
    """An event whose object is ``back`` revisions older than the start of a watch."""

    type: str
    item: Object
    back: int

    def as_before(self, revision: int) -> dict[str, Any]:
        """Return the event; its object is ``back`` revisions older than ``revision``."""
        metadata = {**self.item["metadata"], "resourceVersion": str(revision - self.back)}
        return {"type": self.type, "object": {**self.item, "metadata": metadata}}


LINES = (
    json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 500}}).encode(),
    b"<html>Bad Gateway</html>",
    b'{"type": "MODIFIED", "object": {"kind": "Serv',
    b'{"type": "SYNC", "object": {"metadata": {"resourceVersion": "99999"}}}',
    b"{}",
)
"""Lines of a watch: an error, and lines that no API server sends, such as a proxy's page."""
LISTS = (
    b"<html>Sign in</html>",
    b"[]",
    b'{"kind": "List", "metadata": {"resourceVersion": "99999"}, "items": 7}',
    b'{"kind": "List", "metadata": {}, "items": []}',
    b"{}",
)
"""Answers to a list that the API server wouldn't send."""
