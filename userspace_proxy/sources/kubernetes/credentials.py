"""Loads the API server's address and credentials from a kubeconfig, ``--master`` or this pod.

    kubeconfig ─▶ ClientConfig ─┐
    pod ────────────────────────┼─▶ kubernetes-asyncio's Configuration ─▶ host, header, TLS files
    --master ───────────────────┘   and the proxy on the way

Rule 1: tokens and files are reloaded while the program runs: before a request if a minute has
passed since the last reload, and immediately after a 401. Bound tokens are valid for an hour. A
plugin runs again before its credential expires.
Rule 2: an error at startup is fatal (SourceError); a later error is a TransportError, and is
retried.
"""

from __future__ import annotations

import base64
import calendar
import hashlib
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...bounded_file import read_bounded
from ...clocks import Clocks
from ...errors import SourceError
from ...secrets import OWN
from .key_files import KeyFiles, make_key_files
from .kubeconfig import ClientConfig, Content, server_url
from .kubeconfig_files import Fingerprint, Kubeconfig, fingerprint, one_file, read_kubeconfig
from .library import Library, import_library
from .plugin import PluginCredential, PluginError, cluster_info, plugin_credential
from .proxies import WebProxy, choose_proxy
from .responses import TransportError

# Source: RFC 5280, 4.1.2.5: Validity is a sequence of two times, each a UTCTime (two-digit year)
# through 2049, or a GeneralizedTime from 2050.
_VALIDITY = re.compile(
    rb"\x30.(?:\x17.\d{12}Z|\x18.\d{14}Z)(?:\x17.(\d{12})Z|\x18.(\d{14})Z)", re.DOTALL
)

REFRESH_S = 60.0
"""Seconds after which tokens and files are reloaded, as kubernetes-asyncio does in a pod."""
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

# The maximum size of a token: API servers don't accept longer headers.
_TOKEN_BYTES_MAX = 1 << 20
_BEARER = "BearerToken"
_HOST_VARIABLE = "KUBERNETES_SERVICE_HOST"


def _end_of(certificate: bytes) -> float:
    """Return the Unix time at which the first certificate in a PEM text expires.

    Raises:
        ValueError: The text contains no valid certificate.
    """
    _, _, rest = certificate.partition(b"-----BEGIN CERTIFICATE-----")
    times = _VALIDITY.search(base64.b64decode(rest.partition(b"-----END")[0]))
    if times is None:
        raise ValueError("it is no certificate")
    short, full = times.groups()
    # Two-digit years from 50 on are in the 20th century.
    text = full or (b"19" if short >= b"50" else b"20") + short
    return float(calendar.timegm(time.strptime(text.decode(), "%Y%m%d%H%M%S")))


@dataclass(slots=True)
class _Loaded:
    """Credentials that were loaded together."""

    configuration: Any
    config: ClientConfig | None = None
    """The parsed kubeconfig; None without a kubeconfig."""
    proxy: WebProxy | None = None
    files: KeyFiles = field(default_factory=make_key_files)
    loaded: Fingerprint = ()
    """The fingerprint of the kubeconfig's files."""
    token: str = ""
    of_plugin: PluginCredential | None = None

    def path_of(self, name: str, content: Content) -> str | None:
        """Return the path of a file with this content; None if there is no content."""
        if content.data:
            return self.files.put(name, content.data)
        if content.path:
            # Open the file here, because OpenSSL's error wouldn't name it.
            with Path(content.path).open("rb"):
                return content.path
        return None

    def set_cluster(self, config: ClientConfig) -> None:
        self.config = config
        cluster, user, configuration = config.cluster, config.user, self.configuration
        configuration.host = cluster.server
        if not cluster.is_tls:
            return
        configuration.verify_ssl = not cluster.is_insecure
        configuration.tls_server_name = cluster.tls_server_name or None
        configuration.ssl_ca_cert = self.path_of("certificate-authority", cluster.authority)
        configuration.cert_file = self.path_of("client-certificate", user.certificate)
        configuration.key_file = self.path_of("client-key", user.key)
        self.token = user.token
        self.read_token()

    def read_token(self) -> None:
        """Read the token file, if any; if it is empty or can't be read, keep the previous token.

        Raises:
            OSError: The file can't be read, and there is no previous token.
            ValueError: The file contains no valid token.
        """
        if self.config is None or not self.config.user.token_file:
            return
        path = Path(self.config.user.token_file)
        try:
            token = read_bounded(path, _TOKEN_BYTES_MAX).strip()
        except OSError:
            if not self.token:
                raise
            return
        if not token and self.token:
            return
        text = token.decode(errors="replace")
        # Don't keep the previous token, which may belong to another user; kubectl does the same.
        if not text or not text.isprintable() or "\ufffd" in text:
            raise ValueError(f"{path}: it contains no token")
        self.token = text

    async def ask_plugin(
        self, clock: Callable[[], float], *, is_attended: bool, is_refused: bool = False
    ) -> None:
        """Use the credential of the plugin, if one is configured; run the plugin if due."""
        if self.config is None or self.config.user.plugin is None:
            return
        plugin, cluster = self.config.user.plugin, self.config.cluster
        credential = await plugin_credential(
            plugin,
            cluster_info(cluster) if plugin.wants_cluster else None,
            is_attended=is_attended,
            refused=self.of_plugin if is_refused else None,
            clock=clock,
        )
        if credential is not self.of_plugin:
            self.of_plugin, self.token = credential, credential.token
            certificate, key = Content(credential.certificate), Content(credential.key)
            self.configuration.cert_file = self.path_of("client-certificate", certificate)
            self.configuration.key_file = self.path_of("client-key", key)


class Credentials:
    """The address of an API server, and the credentials for it.

    Args:
        kubeconfig: Kubeconfig files; may be empty.
        master: The server's URL, which overrides the kubeconfig's URL; without a kubeconfig, no
            credentials are sent to it. If both are empty: this pod's server.
        service_account: The folder with a pod's token and the server's certificate authority.
        clock: Returns seconds since 1970.

    Source: kube-proxy's --kubeconfig and --master.
    """

    def __init__(
        self,
        *,
        kubeconfig: str | Kubeconfig = "",
        master: str = "",
        service_account: Path = SERVICE_ACCOUNT,
        clock: Callable[[], float] = Clocks.time,
    ) -> None:
        self._kubeconfig = one_file(kubeconfig) if isinstance(kubeconfig, str) else kubeconfig
        self._master = master.rstrip("/")
        self._service_account = service_account
        self._clock = clock
        self._checked: ClientConfig | None = None
        """The kubeconfig as of the last read."""
        self._library: Library
        self._state: _Loaded | None = None
        self._refreshed_s = 0.0

    @property
    def configuration(self) -> Any:
        """kubernetes-asyncio's Configuration; None before :meth:`load`."""
        return self._state.configuration if self._state else None

    @property
    def proxy(self) -> WebProxy | None:
        """The proxy for the server; None without one, and before :meth:`load`."""
        return self._state.proxy if self._state else None

    @property
    def location(self) -> str:
        """The server's URL; before :meth:`load`, ``--master``, the kubeconfig, or this pod."""
        if self.configuration is not None:
            return str(self.configuration.host)
        return self._master or str(self._kubeconfig or "the API server of this pod")

    @property
    def cluster(self) -> str:
        """The server's URL, with its authority's digest if known; valid after :meth:`check`."""
        server = self._config.cluster.server if self._config else self._master or self.location
        authority = self._authority()
        if not authority:
            return server
        return f"{server}, authority {hashlib.sha256(authority).hexdigest()[:16]}"

    def _authority(self) -> bytes:
        authority = self._config.cluster.authority if self._config else Content()
        if authority.data:
            return base64.b64encode(authority.data)
        if not self._kubeconfig and not self._master:
            authority = Content(path=str(self._service_account / "ca.crt"))
        try:
            return Path(authority.path).read_bytes() if authority.path else b""
        except OSError:
            return b""

    @property
    def description(self) -> str:
        """A description of the credentials, for messages."""
        if self._config is not None and not self._config.cluster.is_tls:
            return f"{self._config.place}: its credentials are sent only to https"
        if self._kubeconfig:
            place = self._config.place if self._config else self._kubeconfig
            return f"the credentials in {place}{self._expiry}"
        if self._master:
            return "--kubeconfig: none is given"
        return f"the token in {self._service_account / 'token'}, which deleting the pod renews"

    @property
    def _expiry(self) -> str:
        """A clause with the day on which the client certificate expired, if it is known to."""
        path = self._state.configuration.cert_file if self._state else None
        try:
            ended = _end_of(Path(path).read_bytes()) if path else math.inf
        except (OSError, ValueError):
            return ""
        if ended > Clocks.time():
            return ""
        day = time.strftime("%Y-%m-%d", time.gmtime(ended))
        return f": the client certificate expired on {day}"

    @property
    def impersonation(self) -> tuple[tuple[str, str], ...]:
        """The names and values of impersonation headers; may be empty."""
        return self._config.user.impersonation if self._config else ()

    @property
    def is_uncompressed(self) -> bool:
        """Whether responses must not be compressed."""
        return self._config is not None and self._config.cluster.is_uncompressed

    @property
    def _config(self) -> ClientConfig | None:
        return (self._state.config if self._state else None) or self._checked

    def check(self) -> None:
        """Read the kubeconfig, if one is used, and check that it names a server.

        Raises:
            SourceError: The kubeconfig or ``--master`` can't be used, or no server is named.
        """
        if self._master:
            _check_master(self._master)
        if self._kubeconfig:
            self._checked = read_kubeconfig(self._kubeconfig, server=self._master)

    async def load(self, now: float) -> None:
        """Load the address and the credentials for the first time; this may run a plugin.

        Raises:
            SourceError: Loading failed; the message states the cause and the remedy.
        """
        self._library = import_library()
        try:
            await self._load(now)
            await self.header()
        except TransportError as exc:
            raise SourceError(exc.message, hint=exc.hint) from exc
        except PluginError as exc:
            raise SourceError(f"cannot use {self._place}: {exc.message}", hint=exc.hint) from exc
        except (OSError, ValueError, self._library.kube_config.ConfigException) as exc:
            raise SourceError(f"cannot use {self._place}: {_one_line(exc)}") from exc

    @property
    def _place(self) -> str:
        if not self._kubeconfig:
            return "the service account of this pod"
        return f"kubeconfig {self._config.place if self._config else self._kubeconfig}"

    def close(self) -> None:
        """Forget certificates and keys; idempotent."""
        if self._state is not None:
            self._state.files.close()

    async def refresh(self, now: float, *, is_refused: bool = False) -> None:
        """Reload tokens and files, and run a plugin, if due.

        Args:
            is_refused: Whether the server has just returned 401, so that reloading is due.

        Raises:
            TransportError: A file can't be used, or a plugin failed; the old credentials remain.
        """
        try:
            if is_refused or now - self._refreshed_s >= REFRESH_S:
                if self._fingerprint() != self._state_now.loaded:
                    await self._load(now)
                else:
                    self._state_now.read_token()
                self._refreshed_s = now
            await self._state_now.ask_plugin(
                self._clock, is_attended=self._is_attended, is_refused=is_refused
            )
        except (OSError, ValueError, PluginError, SourceError) as exc:
            raise TransportError(f"cannot refresh {self.description}: {_one_line(exc)}") from exc

    async def header(self) -> dict[str, str]:
        """Return the Authorization header, if any; its secret is omitted from output from now on.

        Raises:
            TransportError: The pod's token can't be read, or the kubeconfig's id-token has expired.
        """
        if self._state_now.config is not None:
            value = self._authorization(self._state_now, self._state_now.config)
        else:
            try:
                value = await self.configuration.get_api_key_with_prefix(_BEARER)
            except (OSError, ValueError, self._library.kube_config.ConfigException) as exc:
                raise TransportError(f"cannot read {self.description}: {_one_line(exc)}") from exc
        # A token file may end with a newline, which headers can't contain.
        value = (value or "").strip()
        OWN.learn(value.partition(" ")[2])
        return {"Authorization": value} if value else {}

    def tls_files(self) -> Fingerprint:
        """Return a fingerprint of the files with the authority, the certificate and its key."""
        names = ("ssl_ca_cert", "cert_file", "key_file")
        return tuple(fingerprint(getattr(self.configuration, name)) for name in names)

    @property
    def _state_now(self) -> _Loaded:
        assert self._state is not None
        return self._state

    @property
    def _is_attended(self) -> bool:
        return self._kubeconfig is not None and self._kubeconfig.is_attended

    async def _load(self, now: float) -> None:
        state = _Loaded(self._library.kube_config.Configuration(), loaded=self._fingerprint())
        try:
            self.check()
            proxy_url = ("", "")
            if self._checked is not None:
                state.set_cluster(self._checked)
                proxy_url = self._checked.cluster.proxy_url, self._checked.cluster.proxy_place
            elif self._master:
                state.configuration.host = server_url(self._master)
            else:
                self._load_service_account(state.configuration)
            state.proxy = choose_proxy(state.configuration.host, *proxy_url, os.environ)
            if state.proxy is not None:
                OWN.learn(state.proxy.user or "", *(state.proxy.credentials or ())[1:])
            await state.ask_plugin(self._clock, is_attended=self._is_attended)
        except BaseException:
            state.files.close()
            raise
        self.close()
        self._state, self._refreshed_s = state, now

    def _authorization(self, state: _Loaded, config: ClientConfig) -> str:
        user = config.user
        if user.expires is not None and self._clock() >= user.expires:
            raise TransportError(
                f"cannot use {self._place}: its id-token has expired",
                hint="run kubectl once, which renews it",
            )
        if state.token:
            return f"Bearer {state.token}"
        if user.username:
            OWN.learn(user.password)
            pair = f"{user.username}:{user.password}".encode()
            return f"Basic {base64.b64encode(pair).decode()}"
        return ""

    def _fingerprint(self) -> Fingerprint:
        return tuple(map(fingerprint, self._kubeconfig.paths)) if self._kubeconfig else ()

    def _load_service_account(self, configuration: Any) -> None:
        if not os.environ.get(_HOST_VARIABLE):
            raise SourceError(
                f"cannot find an API server: this is not a pod ({_HOST_VARIABLE} is not set)",
                hint="give --kubeconfig FILE, --master URL, or --manifests PATH",
            )
        self._library.incluster_config.load_incluster_config(
            client_configuration=configuration,
            token_filename=str(self._service_account / "token"),
            cert_filename=str(self._service_account / "ca.crt"),
        )


def _check_master(text: str) -> None:
    try:
        server_url(text)
    except ValueError as exc:
        raise SourceError(
            f"cannot use --master {text}: it {exc}", hint="write it as https://10.0.0.1:6443"
        ) from None


def _one_line(exc: BaseException) -> str:
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    place = f"{exc.filename}: " if isinstance(exc, OSError) and exc.filename else ""
    return place + (" ".join(text.split()) or type(exc).__name__)
