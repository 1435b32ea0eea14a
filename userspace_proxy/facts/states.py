"""The states of Service ports, one row each; all that depends on a state alone is in its row.

Rule 1: the value is its word in the JSON and the page; a search finds it as ``is:`` and the word,
with dashes.
Rule 2: how bad a state is depends on the port as well (:class:`.Level`).
"""

from __future__ import annotations

import enum
from typing import Any


class PortState(enum.StrEnum):
    """How the clients of a Service port are served."""

    word: str
    serves: bool
    """Its clients are served, though perhaps less well than they could be, or nothing shows that
    they aren't."""
    neutral: str
    """What a neutral mark of it states: no client is known to be answered, and none fails. Empty:
    it has no such mark."""
    waits: bool
    """Its sentence contains how many clients wait."""
    expected: bool
    """It is no fault, and no client is served yet."""

    SERVED = "served", True
    UNKNOWN = "unknown", True, "not known whether clients are answered"
    PARTLY_ANSWERING = "partly answering", True
    FAILED_BEFORE = "failed before", True
    UNANSWERED = "unanswered", True
    NONE_ADMITTED = "none admitted", True
    AT_LIMIT = "at their limit", True, "", True
    OUT_OF_CLIENT_PORTS = "out of client ports", True
    PARTLY_SERVED = "partly served", False
    NOT_SERVED = "not served", False
    REFUSED = "refused", False
    HOLDING = "holding", False, "without an endpoint: clients would wait", True, True
    DROPPED = "dropped", False, "dropped by design"
    NOT_ANSWERING = "not answering", False
    FAULT_ON_PURPOSE = "fault on purpose", False
    OUT_OF_PORTS = "out of ports", False
    NOT_LOOKED_UP = "not looked up", False, "", False, True
    """Of a plan: only a proxy looks up the names of its endpoints."""

    def __new__(
        cls,
        word: str,
        serves: bool = False,
        neutral: str = "",
        waits: bool = False,
        expected: bool = False,
    ) -> PortState:
        state = str.__new__(cls, word)
        state._value_ = state.word = word
        state.serves, state.neutral = serves, neutral
        state.waits, state.expected = waits, expected
        return state

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        # Python 3.11.2 looks a member up by its name; one of _missing_ has none that it knows.
        return PortState, (str(self),)

    @classmethod
    def _missing_(cls, value: object) -> PortState:
        """Return the state of a newer proxy, whose JSON this one reads, or none yet: ''."""
        state = str.__new__(cls, value)
        state._name_ = state._value_ = state.word = str(value)
        state.serves = state.waits = state.expected = False
        state.neutral = ""
        return state

    @property
    def search_word(self) -> str:
        """What ``is:`` finds it by."""
        return self.replace(" ", "-")


FOUND = tuple(state for state in PortState if state is not PortState.NOT_LOOKED_UP)
"""Those that a running proxy's Service ports have."""
