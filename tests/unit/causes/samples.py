"""Notes with any words, for tests in which these don't matter."""

from userspace_proxy.causes.cause import Cause, as_read
from userspace_proxy.model import CauseCode


def a_note(words: str) -> Cause:
    """Return a note, as of another version of this proxy."""
    return as_read(CauseCode.NOT_FOLLOWED, words)
