"""How a client of ``/api/v1/status`` wants it: which part, and how often a stream has a line.

?view=summary&also=shop/web&watch&every=10
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web
from multidict import MultiMapping

from ..facts import StatusFacts
from ..facts.summary import summarised
from .compression import accepts_gzip
from .sampling import PERIOD_S

SUMMARY_EVERY_S = 5.0
"""As often as workers report by themselves."""
EVERY_MAX_S = 30.0
"""Less than a connection may be silent."""
# As many as a reader can show at once.
_ALSO_MAX = 100


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """The form of an answer."""

    is_summary: bool = False
    """Without what is well."""
    also: frozenset[str] = frozenset()
    """Services, ``namespace/name``, that a summary has anyway."""
    every_s: float | None = None
    """Least seconds between two lines of a stream; None: as often as there are samples."""
    is_gzip: bool = False

    @classmethod
    def read(cls, query: MultiMapping[str], headers: Mapping[str, str]) -> AnswerForm:
        """Read a request.

        Raises:
            HTTPBadRequest: The view doesn't exist, or ``every`` is no number of seconds.
        """
        view = query.get("view", "")
        if view not in ("", "summary"):
            raise web.HTTPBadRequest(reason="view is summary, or isn't given")
        default = SUMMARY_EVERY_S if view else None
        return cls(
            bool(view),
            frozenset(query.getall("also", ())[:_ALSO_MAX]) if view else frozenset(),
            _seconds(query["every"]) if "every" in query else default,
            accepts_gzip(headers),
        )

    def of(self, answer: StatusFacts) -> StatusFacts:
        """Return the part of an answer that is wanted."""
        return summarised(answer, self.also) if self.is_summary else answer


def _seconds(text: str) -> float:
    is_short = text.isascii() and text.isdigit() and len(text) < 9
    if not (is_short and PERIOD_S <= int(text) <= EVERY_MAX_S):
        raise web.HTTPBadRequest(
            reason=f"every is a number of seconds from {PERIOD_S:.0f} to {EVERY_MAX_S:.0f}"
        )
    return float(text)
