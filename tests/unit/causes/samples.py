"""Builds notes for tests that don't depend on the text of notes."""

from userspace_proxy.causes.cause import Cause, CauseCode, as_read


def a_note(words: str) -> Cause:
    """Return a note as decoded from the JSON of another version of the proxy."""
    return as_read(CauseCode.NOT_FOLLOWED, words)
