"""Draws what fails of the requests for this node's object alone, while the others are answered."""

from __future__ import annotations

from .draft import Draft
from .objects import Objects
from .wrong_answers import LINES, LISTS

_CODES = (403, 403, 403, 401, 404, 429, 500, 503)


class NodeFailures:
    """Those of one plan."""

    def __init__(self, draft: Draft, objects: Objects) -> None:
        self.draft = draft
        self.objects = objects

    def draw(self) -> None:
        """Draw some in a row, or that the Node may never be read."""
        rng = self.draft.rng
        draw = rng.random()
        if draw < 0.04:
            self.draft.features.add("node-denied")
        elif draw < 0.12:
            self._fail_in_a_row()

    def _fail_in_a_row(self) -> None:
        """Have one failure follow another, perhaps from a start; other objects change meanwhile."""
        rng = self.draft.rng
        at = rng.uniform(0.0, 0.7) * self.draft.chaos_s
        is_start = rng.random() < 0.6
        for nth in range(rng.choice((1, 2, 3, 5))):
            seconds = rng.choice((0.5, 3.0, 12.0, 40.0))
            how = rng.random()
            if how < 0.6:
                code = rng.choice(_CODES)
                for server in (0, 1):
                    self.draft.step(at, "refuse", server, code, seconds, "nodes", 0)
            elif how < 0.75:
                after = rng.choice((0, 30, 300))
                is_clean, server = rng.random() < 0.3, rng.randrange(2)
                self.draft.step(at, "cut-answer", server, after, "nodes", is_clean, 0, False)
            elif how < 0.9:
                which = rng.choice(list(LISTS))
                self.draft.step(at, "wrong-list", rng.randrange(2), "nodes", which)
            else:
                which = rng.choice(("error", "long", *LINES))
                self.draft.step(at, "wrong-line", rng.randrange(2), "nodes", which)
            if not nth and is_start:
                self.draft.step(at, "agent-restart", rng.random() < 0.5)
            elif rng.random() < 0.5:
                for server in (0, 1):
                    self.draft.step(at, rng.choice(("cut", "end")), server)
            for _ in range(rng.choice((0, 1, 2))):
                later = at + seconds * rng.random()
                self.draft.put(min(later, self.draft.chaos_s), self.objects.item())
            # Often just before the one before ends, so that nothing succeeds between them.
            at += max(0.0, seconds - rng.choice((0.01, 0.01, -1.0, -8.0)))
