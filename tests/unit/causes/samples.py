"""Notes with any text, for tests that don't depend on it."""

from userspace_proxy.causes.cause import Cause, CauseCode, as_read


def a_note(words: str) -> Cause:
    """Return a note as it is read from the JSON of another version of this proxy."""
    return as_read(CauseCode.NOT_FOLLOWED, words)
