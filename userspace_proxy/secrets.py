"""Removes secrets from texts: obvious secrets from all output, and likely secrets from reports.

    exception, log, terminal, page, JSON, Event ──without_secrets──▶ without obvious secrets
    report ──────────────────────────────────────Secrets.remove────▶ without likely secrets

Rule 1: this is the second line of defence: sources that may contain secrets aren't read at all.
Rule 2: the cost is linear in the text's length, regardless of its content.
Rule 3: if in doubt, text is removed from a report, but stays in other output: a Service may be
called ``token``. Quotes stay, so that JSON remains valid.
"""

from __future__ import annotations

import re

REMOVED = "[removed]"

_SECRET_BYTES_MIN = 6
"""The minimum length of known secrets; shorter strings occur in ordinary words."""
_WORD_MIN = 32
"""The length from which a word of upper case, lower case and digits counts as a secret; a UUID has
36 characters, but no upper case."""
# Passwords of these forms stay in output, because equal names would be removed with them.
_LIKE_A_NAME = re.compile(r"[a-z-]{,19}|.{,7}", re.DOTALL)
# The beginning of a word in a name: "pass" matches in DB_PASS and dbPass, not in bypass or BYPASS.
_BEGINS = r"(?:(?<![A-Za-z])|(?-i:(?<=[a-z])(?=[A-Z])))"
_NAMES = (
    rf"passw(?:or)?d|passphrase|passcode|{_BEGINS}(?:admin|db|key|root|store|user)?pass(?![a-z])"
    r"|token|(?:access|account|api|encryption|master|private|secret|shared|signing|storage)[_-]?key"
)
# Names of secrets that are also ordinary words: a name must end with the word, and an unquoted
# value after a colon must have at least six characters, one of them a digit.
_ALONE = (
    rf"{_BEGINS}(?:auth|bearer|cookies?|cred(?:ential)?s?|jwt|pw|(?:j|php)?sess(?:ion)?(?:[_-]?id)?"
    r"|sig)"
    r"(?![\w.-]|\s{0,3}:\s{0,3}(?![\s\"'|]|(?=\S{6})[\w.~+/-]{0,200}\d))"
)
_KEY = rf"(?:{_NAMES}|client[_-]?secret|secret[_-]?key|client-?key-?data)[\"'\\]{{0,2}}"
_FORMS = {
    # Also match private keys in base64, as in kubeconfigs.
    "private key": r"()-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\:,-]*",
    "ls0tls1crudj": r"()\bLS0tLS1CRUdJ[A-Za-z0-9+/=]*",
    "authorization cookie -token x-api-key": (
        r"(?i)((?<![\w/.-])(?:proxy-|set-)?(?:authorization|cookie|x-[a-z]{1,20}-token|x-api-key)"
        r"[\"'\\]{0,2}\s{0,3}[:=]\s{0,3}[\"'\\]{0,2})[^\r\n\"'\\<>]+"
    ),
    # Don't match "basic authentication".
    "bearer basic negotiate": (
        r"\b((?i:bearer|basic|negotiate)\s{1,3})(?=[a-z._~+/-]{0,200}[A-Z0-9=])[\w.~+/=-]{6,}"
    ),
    # An unquoted value must contain a digit, unlike in "shop/token: refused".
    "pass token key= key: key\" key' key-data keydata secret": (
        rf"(?i)((?:{_KEY}=|(?<![\w/.-]){_KEY}:\s{{0,3}}(?=[\"'\\]|(?-i:[A-Za-z._-]{{0,200}}\d))"
        r"|--(?:token|password|client-key|client-secret)\s{1,3})[\"'\\]{0,2})[^\s,;&)\"'\\<>]+"
    ),
    # JWT, and tokens of Amazon's and Google's clusters.
    "eyj k8s-aws-v1. ya29.": r"()\b(?:eyJ[\w-]{4,200}|k8s-aws-v1|ya29)\.[\w.-]+",
}
"""Patterns of obvious secrets; the first group stays. A pattern is searched for only in texts that
contain one of the words in its key, because searching every page for every pattern is slow."""
_CERTAIN = [(words.split(), re.compile(form)) for words, form in _FORMS.items()]
_NAMED = re.compile(
    rf"((?:(?:{_NAMES}|pwd|secret|signature|client-(?:key|certificate)-data)[\w.-]{{0,40}}|{_ALONE})"
    # {"name": "PASSWORD", "value": "x"}, ("password", "x"), <password>x</password>, and YAML's "|".
    r"(?:[\"'\\,\s]{1,20}value[\"'\\]{0,3}\s{0,3}[:=]\s{0,3}|[\"'\\]{1,3},\s{0,3}(?=[\"'\\])"
    r"|[\"'\\]{0,3}\s{0,3}[:=>]{1,2}\s{0,3}(?:[|>]-?\s{1,9})?)"
    rf"|(?<![\w-])--[\w-]{{0,40}}(?:{_NAMES}|pwd|secret|{_ALONE})\s{{1,3}}"
    r"|\s-u\s{0,3}[\w.-]{1,64}:|\b(?:bearer|basic|negotiate)\s{1,3}(?=\S{6}))"
    r"(\\?\"[^\"]*\"?|'[^']*'?|[^\s,;\"')]+)",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(rf"{_NAMES}|pwd|secret|{_ALONE}$", re.IGNORECASE)
_URL = re.compile(r"://[^\s\"'<>]+", re.ASCII)
_URL_WITH_USER = re.compile(rb"://[^\s\"'<>@]*@")
_is_random = re.compile(r"(?=.*[a-z])(?=.*[A-Z]).*[0-9]").match
_WORD = re.compile(r"[A-Za-z0-9+/_=.-]{16,}")
_KNOWN_FORM = re.compile(
    # AWS; GitHub, npm; Vault; GitLab; Slack; Google; kubeadm's bootstrap tokens.
    r"A[KS]IA[0-9A-Z]{16}|(?:gh[pousr]|github_pat|npm)_\w{16,}|hv[bs]\.[\w-]{16,}"
    r"|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{8,}|AIza[\w-]{30,}|[a-z0-9]{6}\.[a-z0-9]{16}"
)


class Secrets:
    """A filter that removes known secrets, such as recent API server tokens, and likely secrets."""

    def __init__(self, *known: str) -> None:
        self._known = known

    def learn(self, *known: str) -> None:
        new = {one for one in known if len(one) >= _SECRET_BYTES_MIN}.difference(self._known)
        # Keep only 16 secrets, because tokens are renewed about every hour. Assign a new tuple,
        # because another thread may be iterating over the old one.
        self._known = (*sorted(new, key=len, reverse=True), *self._known)[:16]

    def remove_certain(self, text: str) -> str:
        """Return a string without obvious and most known secrets, and without users in URLs."""
        for secret in self._known:
            if secret in text and not _LIKE_A_NAME.fullmatch(secret):
                text = text.replace(secret, REMOVED)
        lower = text.lower()
        for words, form in _CERTAIN:
            if any(word in lower for word in words):
                text = form.sub(rf"\1{REMOVED}", text)
        return _URL.sub(_without_user, text)

    def remove_value(self, name: str, text: str) -> str:
        """Return a field's text without likely secrets, or REMOVED if its name suggests one."""
        return REMOVED if text and _SECRET_NAME.search(name) else self.remove(text)

    def remove(self, text: str) -> str:
        """Return a string without obvious and likely secrets."""
        for secret in self._known:
            text = text.replace(secret, REMOVED)
        return _WORD.sub(_word, _NAMED.sub(rf"\1{REMOVED}", self.remove_certain(text)))


OWN = Secrets()
"""The secrets of this process."""
without_secrets = OWN.remove_certain


def without_users(body: bytes) -> bytes:
    """Return JSON without users and passwords in URLs; faster than a search for all secrets."""
    # Cost: without this check, two copies of a 30 MB answer would stay in the process's memory.
    if not _URL_WITH_USER.search(body):
        return body
    return _URL.sub(_without_user, body.decode("latin-1")).encode("latin-1")


def _without_user(match: re.Match[str]) -> str:
    # The last @ ends the password, because not all programs escape a slash or an @ in it.
    _, at, rest = match[0].rpartition("@")
    return f"://{REMOVED}@{rest}" if at else match[0]


def _word(match: re.Match[str]) -> str:
    word = match[0]
    if _KNOWN_FORM.fullmatch(word):
        return REMOVED
    # Parts of paths and dotted names are checked one by one.
    parts = re.split(r"[/.=]", word)
    if any(len(part) >= _WORD_MIN and _is_random(part) for part in parts) or (
        len(word) >= _WORD_MIN and "/" in word and _is_random(word) and "." not in word
    ):
        return REMOVED
    return word
