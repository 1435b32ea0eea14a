"""Notes with any words, for tests in which these don't matter."""

from userspace_proxy.causes.cause import Cause, CauseCode, as_read


def a_note(words: str) -> Cause:
    """Return a note, as of another version of this proxy."""
    return as_read(CauseCode.NOT_FOLLOWED, words)
