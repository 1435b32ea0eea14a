"""What a simulated API server is told to do wrong with one of its next answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from userspace_proxy_testing.fakes.api_objects import Object


@dataclass(eq=False, slots=True)
class Cut:
    """What becomes of one of the next responses."""

    after_bytes: int = 0
    resource: str = ""
    """Empty: any."""
    is_clean: bool = False
    """It ends as if that was all."""
    skip: int = 0
    """So many of that resource come before it."""
    compacts: bool = False
    """Instead, history is forgotten when it is asked for."""
    meanwhile: Callable[[], object] | None = None
    """Called before that."""


@dataclass(frozen=True, slots=True)
class OldEvent:
    """An event that is so many revisions older than what a watch is asked from."""

    type: str
    item: Object
    back: int

    def as_before(self, revision: int) -> dict[str, Any]:
        """Return it, as older than a revision."""
        metadata = {**self.item["metadata"], "resourceVersion": str(revision - self.back)}
        return {"type": self.type, "object": {**self.item, "metadata": metadata}}


LINES = (
    json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 500}}).encode(),
    b"<html>Bad Gateway</html>",
    b'{"type": "MODIFIED", "object": {"kind": "Serv',
    b'{"type": "SYNC", "object": {"metadata": {"resourceVersion": "99999"}}}',
    b"{}",
)
"""Lines of a watch that aren't the API's, as of a proxy on the way, or that name a failure."""
LISTS = (
    b"<html>Sign in</html>",
    b"[]",
    b'{"kind": "List", "metadata": {"resourceVersion": "99999"}, "items": 7}',
    b'{"kind": "List", "metadata": {}, "items": []}',
    b"{}",
)
"""Answers to a list that aren't the API's."""
