"""Removes what looks like a secret from texts that others wrote: logs, causes, objects.

Rule 1: it is the second line of defence: what may contain secrets isn't read at all.
Rule 2: its cost is linear in the text, whatever that contains.
Rule 3: too much is removed rather than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

REMOVED = "[removed]"

_SECRET_BYTES_MIN = 6
"""Shorter ones of the user's own aren't searched for: they are parts of other words."""
_WORD_MIN = 32
"""Characters of a word of upper and lower case and digits that nobody reads; a UUID has 36, of
which none is upper case."""

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----[A-Za-z0-9+/=\s\\:,-]*")
_HEADER = re.compile(
    r"((?:authorization|cookie|x-[a-z]{1,20}-token|x-api-key)[\"'\\]{0,2}\s{0,3}[:=]\s{0,3})"
    r"(\\?\"[^\"]*\"?|'[^']*'?|[^\r\n\"']+)",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(bearer|basic|negotiate)\s{1,3}[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_NAMED = re.compile(
    r"((?:passw(?:or)?d|pwd|passphrase|secret|signature|token|api[_-]?key|access[_-]?key"
    r"|private[_-]?key|client-key-data|client-certificate-data)[\w.-]{0,40}[\"'\\]{0,2}(?:\s{0,3}[:=]\s{0,3}))"
    r"(\\?\"[^\"]*\"?|'[^']*'?|[^\s,;\"')]+)",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(
    r"passw(?:or)?d|pwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key",
    re.IGNORECASE,
)
_FLAG = re.compile(r"(--(?:token|password|client-key|client-secret)\s{1,3})(\S+)")
# Not all programs quote a slash in a password.
_USER_INFO = re.compile(r"(://)[^\s@\"']{1,512}@")
_WORD = re.compile(r"[A-Za-z0-9+/_=.-]{16,}")
_KNOWN_FORM = re.compile(
    # JWT; AWS; GitHub; GitLab; Slack; Google; kubeadm's bootstrap tokens.
    r"eyJ[\w-]+\..*|A[KS]IA[0-9A-Z]{16}|gh[pousr]_\w{16,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{8,}"
    r"|AIza[\w-]{30,}|[a-z0-9]{6}\.[a-z0-9]{16}"
)


class Secrets:
    """What is removed.

    Args:
        known: Secrets of the user, as the token that the API server gets.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = sorted({one for one in known if len(one) >= _SECRET_BYTES_MIN}, key=len)[::-1]

    def remove_value(self, name: str, text: str) -> str:
        """Return the text of a field with a name that others chose; all of it may be a secret."""
        return REMOVED if text and _SECRET_NAME.search(name) else self.remove(text)

    def remove(self, text: str) -> str:
        """Return a text without what looks like a secret."""
        for secret in self._known:
            text = text.replace(secret, REMOVED)
        text = _PRIVATE_KEY.sub(REMOVED, text)
        text = _HEADER.sub(rf"\1{REMOVED}", text)
        text = _SCHEME.sub(rf"\1 {REMOVED}", text)
        text = _NAMED.sub(rf"\1{REMOVED}", text)
        text = _FLAG.sub(rf"\1{REMOVED}", text)
        text = _USER_INFO.sub(rf"\1{REMOVED}@", text)
        return _WORD.sub(_word, text)


def _word(match: re.Match[str]) -> str:
    word = match[0]
    if _KNOWN_FORM.fullmatch(word):
        return REMOVED
    # A path, or names with dots, are words one by one.
    parts = re.split(r"[/.=]", word)
    if any(len(part) >= _WORD_MIN and _is_random(part) for part in parts) or (
        len(word) >= _WORD_MIN and "/" in word and _is_random(word) and "." not in word
    ):
        return REMOVED
    return word


def _is_random(word: str) -> bool:
    return (
        any(map(str.isupper, word)) and any(map(str.islower, word)) and any(map(str.isdigit, word))
    )
