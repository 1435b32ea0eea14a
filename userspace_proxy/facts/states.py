"""Declares the states of Service ports, each as a row with all its properties.

Rule 1: a state's value is the word for it in the JSON and on the page; searches find it as ``is:``
and the word with dashes.
Rule 2: a state's severity also depends on the port (:class:`.Level`).
"""

from __future__ import annotations

import enum
from typing import Any


class PortState(enum.StrEnum):
    """The state of a Service port: how its clients are served."""

    word: str
    serves: bool
    """Whether clients are served, even if with restrictions, or no failure is visible."""
    neutral: str
    """The meaning of a neutral mark: no client is known to be answered or to fail; empty if the
    state has another mark."""
    waits: bool
    """Whether the sentence contains the number of waiting clients."""
    expected: bool
    """Whether the state isn't a fault, although no client is served yet."""

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
    """For plans only: a plan doesn't resolve the DNS names of endpoints."""

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
        # Pickle the value: Python 3.11.2 looks up members by name, which fails for members created
        # by _missing_.
        return PortState, (str(self),)

    @classmethod
    def _missing_(cls, value: object) -> PortState:
        """Return an unknown state, from the JSON of a newer proxy, or the empty state ''."""
        state = str.__new__(cls, value)
        state._name_ = state._value_ = state.word = str(value)
        state.serves = state.waits = state.expected = False
        state.neutral = ""
        return state

    @property
    def search_word(self) -> str:
        """The word by which a search finds the state, after ``is:``."""
        return self.replace(" ", "-")


FOUND = tuple(state for state in PortState if state is not PortState.NOT_LOOKED_UP)
"""The states that Service ports of a running proxy can have."""
