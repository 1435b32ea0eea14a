"""Interprets kubeconfigs: which server, how to reach it, and as which user.

    text of each file ──▶ merged by name ──▶ context ──▶ cluster, user ──▶ ClientConfig

Rule 1: kubeconfigs are read as client-go reads them. Only the chosen context, cluster and user are
checked, so entries of other programs are harmless.
Rule 2: an unknown field of the user is an error, because it may change the identity of requests.
Rule 3: credentials are sent only over https, as by client-go; impersonation is sent in any case.

Source: client-go, tools/clientcmd and rest; kubectl 1.36 on the same files.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

from ...errors import SourceError

if TYPE_CHECKING:
    from ...model.document import Document

API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
MODES = ("Never", "IfAvailable", "Always")

_EXTENSION = "client.authentication.k8s.io/exec"
_USER_FIELDS = frozenset((
    "as", "as-groups", "as-uid", "as-user-extra", "auth-provider", "client-certificate",
    "client-certificate-data", "client-key", "client-key-data", "exec", "extensions", "password",
    "token", "tokenFile", "username",
))  # fmt: skip
_LISTS = ("clusters", "contexts", "users")
_NO_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NO_URL = re.compile(r"[\x00-\x20\x7f]")
# Characters besides letters and digits that needn't be escaped in a header's name.
_OF_NAMES = "!#$&'*+-.^_`|~"


class KubeconfigFile(NamedTuple):
    """One kubeconfig file."""

    place: str
    """The file's path, as given."""
    folder: PurePath
    """The folder to which paths in the file are relative."""
    document: Document | None
    """The file's content; None if the file is empty."""


@dataclass(frozen=True, slots=True)
class Content:
    """A certificate or key, as inline content or the path of a file; both are empty if missing."""

    data: bytes = b""
    path: str = ""

    def __bool__(self) -> bool:
        return bool(self.data or self.path)


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """A program that returns credentials."""

    command: str
    """An absolute path, or a name to find in PATH."""
    api_version: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    install_hint: str = ""
    mode: str = "IfAvailable"
    """One of MODES: whether the plugin reads from the terminal."""
    wants_cluster: bool = False


@dataclass(frozen=True, slots=True)
class KubeCluster:
    """The address of a server, and the settings for connections to it."""

    server: str
    """The URL without a final slash."""
    written: str
    """The URL as written in the file, or in the option that overrides it."""
    authority: Content = Content()
    tls_server_name: str = ""
    is_insecure: bool = False
    """Whether the server's certificate isn't verified."""
    proxy_url: str = ""
    proxy_place: str = ""
    """Where the proxy is configured, for errors."""
    is_uncompressed: bool = False
    extension: Any = None
    """The value that a plugin receives as ``config``; None if there is none."""

    @property
    def is_tls(self) -> bool:
        """Whether requests are encrypted; if not, no secrets are sent."""
        return self.server.startswith("https:")


@dataclass(frozen=True, slots=True)
class KubeUser:
    """The identity of requests; anonymous if all fields are empty."""

    token: str = ""
    token_file: str = ""
    """The file with the token, which takes precedence over ``token``."""
    username: str = ""
    password: str = ""
    certificate: Content = Content()
    key: Content = Content()
    plugin: ExecPlugin | None = None
    """The plugin that returns the credentials; None if others are given, or none is configured."""
    expires: float | None = None
    """The token's expiry time, in seconds since 1970; None if unknown."""
    impersonation: tuple[tuple[str, str], ...] = ()
    """Impersonation headers."""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The cluster, user and namespace of a context."""

    cluster: KubeCluster
    user: KubeUser
    namespace: str
    """The namespace; empty means ``default``."""
    place: str
    """The file with the user, otherwise the file with the cluster, otherwise the first file."""
    context: str = ""
    """The context's name; empty without a context."""


def server_url(text: str) -> str:
    """Return a server's URL as client-go completes it, without a final slash.

    Raises:
        ValueError: The text isn't the URL of a server; the message states the problem.
    """
    if _NO_URL.search(text):
        raise ValueError("is not a URL")
    try:
        parts = urlsplit(text)
        is_whole = bool(parts.scheme and parts.netloc)
        parts = parts if is_whole else urlsplit(f"http://{text}")
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if not is_whole and parts.path not in ("", "/"):
        raise ValueError("is neither a URL nor host:port")
    if parts.scheme not in ("http", "https"):
        raise ValueError("is not an http(s) URL")
    if parts.username is not None:
        raise ValueError("must not contain a user: give username and password to the user")
    if not parts.hostname or port == 0:
        raise ValueError("has no host, or no port")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def read_client_config(
    files: Sequence[KubeconfigFile],
    *,
    context: str = "",
    cluster: str = "",
    user: str = "",
    server: str = "",
) -> ClientConfig:
    """Merge kubeconfigs, in which the first entry of a name wins; return the chosen config.

    Args:
        files: The kubeconfig files; at least one.
        context: Overrides ``current-context``.
        cluster: Overrides the context's cluster.
        user: Overrides the context's user.
        server: Overrides the cluster's server, whose ``tls-server-name`` is then ignored.

    Raises:
        SourceError: The files are invalid, lack a chosen entry, or name no server; the message
            states where.
    """
    merged = _Merged(files)
    name, named_by = context, None
    if not context:
        name, named_by = merged.current_context()
    chosen = merged.find("contexts", name, named_by, f"--context={context}") if name else None
    if chosen is None and not cluster and not server:
        hint = f"give --context=NAME: {merged.names('contexts')}"
        raise merged.missing("current-context", "is missing", hint=hint)
    part = chosen.part("context") if chosen else None
    cluster_name = cluster or (part.text("cluster") if part else "")
    if part and not cluster_name and not server:
        raise part.wrong("cluster", "is missing", hint="or give --cluster=NAME")
    asked_by = (part, "cluster") if part else None
    found = _Part(files[0], "", {})
    if cluster_name:
        found = merged.find("clusters", cluster_name, asked_by, f"--cluster={cluster}")
    user_name = user or (part.text("user") if part else "")
    # As in client-go, a user that a context names but that doesn't exist has no credentials.
    owner = merged.users.get(user_name)
    if user and owner is None:
        raise merged.missing("users", f"--user={user} is not among them: {merged.names('users')}")
    reached = _read_cluster(found.part("cluster"), server)
    return ClientConfig(
        reached,
        _read_user(owner.part("user"), is_tls=reached.is_tls) if owner else KubeUser(),
        part.text("namespace") if part else "",
        (owner or found).file.place,
        name,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """A mapping in a file; methods raise SourceError for a field of the wrong type."""

    file: KubeconfigFile
    path: str
    value: Mapping[str, Any]

    def part(self, key: str) -> _Part:
        """Return a nested mapping; empty if it is missing."""
        value = self.value.get(key)
        if not isinstance(value, dict | None):
            raise self.wrong(key, "is not a mapping")
        return _Part(self.file, f"{self.path}.{key}" if self.path else key, value or {})

    def text(self, key: str) -> str:
        """Return a string; empty if it is missing."""
        return self._text(key, self.value.get(key))

    def header(self, key: str) -> str:
        """Return a string without surrounding whitespace, checked to be a valid header value."""
        text = self.text(key).strip()
        self._check_header(key, text)
        return text

    def texts(self, key: str, *, are_headers: bool = False) -> tuple[str, ...]:
        """Return a list of strings, checked as header values on request; empty if missing."""
        value = self.value.get(key)
        if not isinstance(value, list | None):
            raise self.wrong(key, "is not a list")
        texts = tuple(self._text(f"{key}[{i}]", item) for i, item in enumerate(value or ()))
        for i, text in enumerate(texts if are_headers else ()):
            self._check_header(f"{key}[{i}]", text)
        return texts

    def flag(self, key: str) -> bool:
        """Return a boolean; false if it is missing."""
        value = self.value.get(key)
        if not isinstance(value, bool | None):
            raise self.wrong(key, "is neither true nor false")
        return bool(value)

    def content(self, key: str) -> Content:
        """Return the content in the field ``key-data``, or else the path in the field ``key``."""
        data = self.text(f"{key}-data").replace("\n", "").replace("\r", "")
        if not data:
            return Content(path=self.file_path(key))
        try:
            return Content(base64.b64decode(data, validate=True))
        except ValueError:
            raise self.wrong(f"{key}-data", "is not base64") from None

    def file_path(self, key: str) -> str:
        """Return a path, resolved from the file's folder; empty if it is missing."""
        text = self.text(key)
        if "\0" in text:
            raise self.wrong(key, "is not a path")
        return str(self.file.folder / text) if text else ""

    def wrong(self, key: str, problem: str, *, hint: str = "") -> SourceError:
        text = " ".join(f"{self.place_of(key)}: {problem}".split())
        return SourceError(f"cannot use kubeconfig {text}", hint=hint)

    def place_of(self, key: str) -> str:
        """Return the file, line and path of a field, or of this mapping if the key is empty."""
        path = ".".join(filter(None, (self.path, key)))
        document = self.file.document
        place = f"{self.file.place}:{document.line_of(path)}" if document else self.file.place
        return f"{place}: {path}" if path else place

    def _text(self, key: str, value: Any) -> str:
        if not isinstance(value, str | None):
            raise self.wrong(key, "is not text", hint="quote it")
        return value or ""

    def _check_header(self, key: str, text: str) -> None:
        if _NO_HEADER.search(text):
            raise self.wrong(key, "contains a line break or another control character")


class _Merged:
    """The entries of all files, by name."""

    def __init__(self, files: Sequence[KubeconfigFile]) -> None:
        self._files = files
        self._tops = [_top(file) for file in files if file.document is not None]
        self._found: dict[str, dict[str, _Part]] = {name: {} for name in _LISTS}
        for top in self._tops:
            for list_, entries in self._found.items():
                for name, entry in _named(top, list_).items():
                    entries.setdefault(name, entry)

    @property
    def users(self) -> Mapping[str, _Part]:
        return self._found["users"]

    def names(self, list_: str) -> str:
        """Return a hint that lists the available names."""
        known = ", ".join(map(_shown, self._found[list_]))
        return f"known: {known}" if known else "there are none"

    def current_context(self) -> tuple[str, tuple[_Part, str] | None]:
        """Return the first ``current-context``, and its origin; empty and None if there is none."""
        for top in self._tops:
            if name := top.text("current-context"):
                return name, (top, "current-context")
        return "", None

    def find(self, list_: str, name: str, named_by: tuple[_Part, str] | None, flag: str) -> _Part:
        """Return the entry called ``name`` of a list such as ``contexts``.

        Args:
            named_by: The entry and field with the name; ignored, and may be None, with a flag.
            flag: The flag that selects an entry, with its value, for messages; ``--context=`` if it
                wasn't given.

        Raises:
            SourceError: No entry has this name.
        """
        if (found := self._found[list_].get(name)) is not None:
            return found
        if named_by is None or flag.partition("=")[2]:
            raise self.missing(list_, f"{flag} is not among them: {self.names(list_)}")
        entry, key = named_by
        raise entry.wrong(key, f"{_shown(name)} is not among {list_}: {self.names(list_)}")

    def missing(self, key: str, problem: str, *, hint: str = "") -> SourceError:
        """Return the error for an entry or a field that no file contains."""
        if len(self._tops) == 1:
            return self._tops[0].wrong(key, problem, hint=hint)
        places = ", ".join(file.place for file in self._files)
        return SourceError(f"cannot use kubeconfig {places}: {key}: {problem}", hint=hint)


def _top(file: KubeconfigFile) -> _Part:
    value = file.document.value if file.document else {}
    entry = _Part(file, "", value if isinstance(value, dict) else {})
    if not isinstance(value, dict):
        raise entry.wrong("", "it is not a mapping")
    for key, wanted in (("kind", "Config"), ("apiVersion", "v1")):
        if (text := entry.text(key)) not in ("", wanted):
            raise entry.wrong(key, f"{_shown(text)} is not {wanted}")
    return entry


def _named(top: _Part, list_: str) -> dict[str, _Part]:
    items = top.value.get(list_)
    if not isinstance(items, list | None):
        raise top.wrong(list_, "is not a list")
    entries: dict[str, _Part] = {}
    for i, item in enumerate(items or ()):
        path = f"{list_}[{i}]"
        if not isinstance(item, dict | None):
            raise top.wrong(path, "is not a mapping")
        entry = _Part(top.file, path, item or {})
        name = entry.text("name")
        if name in entries:
            raise entry.wrong("name", f"{_shown(name)} is given twice")
        entries[name] = entry
    return entries


def _read_cluster(entry: _Part, instead: str) -> KubeCluster:
    written = instead or entry.text("server")
    if not written:
        raise entry.wrong("server", "is missing")
    try:
        server = server_url(written)
    except ValueError as exc:
        raise entry.wrong("server", f"{_shown(written)} {exc}") from None
    authority, is_insecure = entry.content("certificate-authority"), entry.flag(_INSECURE)
    if authority and is_insecure and server.startswith("https:"):
        hint = "remove one of them"
        raise entry.wrong(_INSECURE, "is given together with a certificate authority", hint=hint)
    name = "proxy-url"
    return KubeCluster(
        server,
        written,
        authority,
        "" if instead else entry.text("tls-server-name"),
        is_insecure,
        entry.text(name),
        entry.place_of(name),
        entry.flag("disable-compression"),
        next(_exec_extensions(entry), None),
    )


_INSECURE = "insecure-skip-tls-verify"


def _exec_extensions(entry: _Part) -> Iterator[Any]:
    items = entry.value.get("extensions")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("name") == _EXTENSION:
            yield item.get("extension")


def _read_user(entry: _Part, *, is_tls: bool) -> KubeUser:
    for key in entry.value:
        if key not in _USER_FIELDS:
            hint = "remove it, if requests should be made without it"
            raise entry.wrong(
                key, "is not known, and may change as whom requests are made", hint=hint
            )
    impersonation = tuple(_impersonation(entry))
    plugin = _read_plugin(entry.part("exec")) if entry.value.get("exec") is not None else None
    username, token = entry.text("username"), entry.header("token")
    token_file = entry.file_path("tokenFile")
    if username and (token or token_file):
        raise entry.wrong("username", "is given together with a token", hint="remove one of them")
    certificate = entry.content("client-certificate")
    private_key = entry.content("client-key")
    if certificate and not private_key:
        raise entry.wrong("client-key", "is missing, and there is a client-certificate")
    if not is_tls:
        return KubeUser(impersonation=impersonation)
    expires = None
    if entry.value.get("auth-provider") is not None:
        provided, until = _of_provider(entry.part("auth-provider"), has_plugin=plugin is not None)
        if not (token or token_file or username):
            token, expires = provided, until
    has_other = token or token_file or username or certificate
    return KubeUser(
        token,
        token_file,
        username,
        entry.text("password"),
        certificate,
        private_key if certificate else Content(),
        None if has_other else plugin,
        expires,
        impersonation,
    )


def _impersonation(entry: _Part) -> Iterator[tuple[str, str]]:
    user, uid = entry.header("as"), entry.header("as-uid")
    groups = entry.texts("as-groups", are_headers=True)
    extra = entry.part("as-user-extra")
    others = {"as-uid": uid, "as-groups": groups, "as-user-extra": extra.value}
    if not user:
        if given := next((key for key, value in others.items() if value), ""):
            raise entry.wrong(given, "is given without as", hint="as names the user")
        return
    yield "Impersonate-User", user
    if uid:
        yield "Impersonate-Uid", uid
    for group in groups:
        yield "Impersonate-Group", group
    for key in extra.value:
        for text in extra.texts(key, are_headers=True):
            yield f"Impersonate-Extra-{quote(key, safe=_OF_NAMES)}", text


def _read_plugin(entry: _Part) -> ExecPlugin:
    command, version, mode = (entry.text(k) for k in ("command", "apiVersion", "interactiveMode"))
    for key, text in (("command", command), ("apiVersion", version)):
        if not text:
            raise entry.wrong(key, "is missing")
    if version not in API_VERSIONS:
        raise entry.wrong(
            "apiVersion", f"{_shown(version)} is not one of {', '.join(API_VERSIONS)}"
        )
    if not mode:
        if version == API_VERSIONS[0]:
            raise entry.wrong("interactiveMode", f"is missing: one of {', '.join(MODES)}")
        mode = "IfAvailable"
    if mode not in MODES:
        raise entry.wrong("interactiveMode", f"{_shown(mode)} is not one of {', '.join(MODES)}")
    is_path = PurePath(command).name != command
    return ExecPlugin(
        entry.file_path("command") if is_path else command,
        version,
        _without_nul(entry, "args", entry.texts("args")),
        tuple(_variables(entry)),
        "".join(filter(str.isprintable, " ".join(entry.text("installHint").split()))),
        mode,
        entry.flag("provideClusterInfo"),
    )


def _variables(entry: _Part) -> Iterator[tuple[str, str]]:
    items = entry.value.get("env")
    if not isinstance(items, list | None):
        raise entry.wrong("env", "is not a list")
    for i, item in enumerate(items or ()):
        here = _Part(entry.file, f"{entry.path}.env[{i}]", item if isinstance(item, dict) else {})
        name, value = _without_nul(here, "value", (here.text("name"), here.text("value")))
        if not name or "=" in name:
            raise here.wrong("name", "is missing" if not name else "must not contain =")
        yield name, value


def _without_nul(entry: _Part, key: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    if any("\0" in text for text in texts):
        raise entry.wrong(key, "contains a NUL")
    return texts


def _of_provider(entry: _Part, *, has_plugin: bool) -> tuple[str, float | None]:
    """Return the token of an auth provider, and its expiry in Unix time; None if unknown."""
    name = entry.text("name")
    if has_plugin:
        raise entry.wrong("name", "is given together with exec", hint="remove one of them")
    if name != "oidc":
        hint = "use its exec plugin instead, as kubectl does since 1.26"
        raise entry.wrong("name", f"{_shown(name)} is not supported", hint=hint)
    config = entry.part("config")
    token = config.header("id-token")
    if not token:
        raise config.wrong("id-token", "is missing", hint="run kubectl once, which renews it")
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        expires = claims.get("exp")
    except (IndexError, ValueError, AttributeError, RecursionError):
        raise config.wrong("id-token", "is not a JWT") from None
    return token, float(expires) if isinstance(expires, int | float) else None


def _shown(name: str) -> str:
    return repr(name)
