"""The API server's address and the credentials for it: kubeconfig, ``--master``, or a pod's own.

    kubeconfig ─┐
    pod         ├─▶ kubernetes-asyncio's Configuration ─▶ host, proxy, header, TLS files
    --master ───┘

Rule 1: tokens and files are read again while the program runs: before a request if a minute has
passed, and at once after a 401. Bound tokens live for an hour.
Rule 2: at the start an error ends the run (SourceError); later it is a TransportError, and
reading is tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import SourceError
from .kubeconfig import check_kubeconfig
from .library import Library, import_library
from .loader import make_loader
from .plugin import PluginError
from .responses import TransportError

PLUGIN_S = 60.0
"""Seconds for one run of an exec plugin."""
REFRESH_S = 60.0
"""Seconds after which tokens and files are read again, as kubernetes-asyncio does for a pod's."""
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

# Also limits a token endpoint, for which kubernetes-asyncio has no timeout.
_LOAD_S = PLUGIN_S + 5.0
_BEARER = "BearerToken"
_HOST_VARIABLE = "KUBERNETES_SERVICE_HOST"
# What kubernetes-asyncio raises for an invalid kubeconfig, in part by accident.
_LOADING_ERRORS = (
    AssertionError,
    AttributeError,
    KeyError,
    OSError,
    PluginError,
    RuntimeError,
    TypeError,
    ValueError,
)

Fingerprint = tuple[object, ...]


class Credentials:
    """The address of an API server, and how to authenticate to it.

    Args:
        kubeconfig: A kubeconfig file; empty: none.
        master: The server's URL, instead of the kubeconfig's; without a kubeconfig no credentials
            are sent to it. Both empty: the server of this pod.
        service_account: The folder of a pod's token and of the server's certificate.

    Source: kube-proxy's --kubeconfig and --master.
    """

    def __init__(
        self, *, kubeconfig: str = "", master: str = "", service_account: Path = SERVICE_ACCOUNT
    ) -> None:
        self._kubeconfig = kubeconfig
        self._master = master.rstrip("/")
        self._service_account = service_account
        self._cluster: Mapping[str, Any] = {}
        """The kubeconfig's cluster."""
        self._library: Library
        self._loader: Any = None
        self._loaded: Fingerprint = ()
        """The kubeconfig file, as it was when it was loaded."""
        self._refreshed_s = 0.0
        self.configuration: Any = None
        """kubernetes-asyncio's Configuration; None before :meth:`load`."""

    @property
    def location(self) -> str:
        """The server's URL; before :meth:`load`, its origin."""
        if self.configuration is not None:
            return str(self.configuration.host)
        return self._master or self._kubeconfig or "the API server of this pod"

    @property
    def cluster(self) -> str:
        """The server with its certificate authority; valid after :meth:`check`."""
        server = self._master or self._cluster.get("server") or self.location
        authority = self._authority()
        if not authority:
            return str(server)
        return f"{server}, authority {hashlib.sha256(authority).hexdigest()[:16]}"

    def _authority(self) -> bytes:
        if data := self._cluster.get("certificate-authority-data"):
            return str(data).encode()
        path = self._cluster.get("certificate-authority")
        if not self._kubeconfig and not self._master:
            path = self._service_account / "ca.crt"
        if not path:
            return b""
        try:
            return (Path(self._kubeconfig).expanduser().parent / str(path)).read_bytes()
        except OSError:
            return b""

    @property
    def description(self) -> str:
        """The credentials, for a message."""
        if self._kubeconfig:
            return f"the credentials in {self._kubeconfig}"
        if self._master:
            return "--kubeconfig: none is given"
        return f"the token in {self._service_account / 'token'}"

    def check(self) -> None:
        """Check that a kubeconfig, if one is used, names a server.

        Raises:
            SourceError: It doesn't.
        """
        if self._kubeconfig:
            self._cluster = check_kubeconfig(self._kubeconfig).cluster

    async def load(self, now: float) -> None:
        """Read everything for the first time.

        Raises:
            SourceError: The cause, and what to do about it.
        """
        self._library = import_library()
        try:
            async with asyncio.timeout(_LOAD_S):
                await self._load(now)
        except (*_LOADING_ERRORS, self._library.kube_config.ConfigException) as exc:
            raise SourceError(
                f"cannot use {self._kubeconfig or 'the service account of this pod'}: "
                f"{_one_line(exc)}",
                hint="give --kubeconfig a file that kubectl works with",
            ) from exc

    def close(self) -> None:
        """Forget certificates and keys; idempotent."""
        if self._loader is not None:
            self._loader.close()

    async def refresh(self, now: float, *, is_refused: bool = False) -> None:
        """Read tokens and files again, if that is due.

        Args:
            is_refused: The server has just returned 401, so it is due.

        Raises:
            TransportError: They can't be read; the old ones stay.
        """
        if not is_refused and now - self._refreshed_s < REFRESH_S:
            return
        try:
            async with asyncio.timeout(_LOAD_S):
                if self._kubeconfig and _fingerprint(self._kubeconfig) != self._loaded:
                    await self._load(now)
                elif self._loader is not None:
                    if is_refused:
                        self._loader.expire()
                    await self._loader.load_and_set(self.configuration)
        except (*_LOADING_ERRORS, self._library.kube_config.ConfigException) as exc:
            raise TransportError(f"cannot refresh {self.description}: {_one_line(exc)}") from exc
        except SourceError as exc:
            raise TransportError(str(exc)) from exc
        self._refreshed_s = now

    async def header(self) -> dict[str, str]:
        """Return the header for a token; empty if there is none.

        Raises:
            TransportError: The token's file can't be read.
        """
        try:
            value = await self.configuration.get_api_key_with_prefix(_BEARER)
        except (OSError, ValueError, self._library.kube_config.ConfigException) as exc:
            raise TransportError(f"cannot read {self.description}: {_one_line(exc)}") from exc
        # A token file may end with a newline, which no header may contain.
        return {"Authorization": value.strip()} if value else {}

    def tls_files(self) -> Fingerprint:
        """Return a value that changes when a certificate or key does."""
        names = ("ssl_ca_cert", "cert_file", "key_file")
        return tuple(_fingerprint(getattr(self.configuration, name)) for name in names)

    async def _load(self, now: float) -> None:
        configuration = self._library.kube_config.Configuration()
        if self._kubeconfig:
            self.check()
            self._loaded = _fingerprint(self._kubeconfig)
            await self._load_kubeconfig(configuration)
        elif not self._master:
            self._load_service_account(configuration)
        if self._master:
            _check_url(self._master)
            configuration.host = self._master
        self.configuration = configuration
        self._refreshed_s = now

    async def _load_kubeconfig(self, configuration: Any) -> None:
        loader = make_loader(self._library, self._kubeconfig, plugin_s=PLUGIN_S)
        try:
            await loader.load_and_set(configuration)
        except BaseException:
            loader.close()
            raise
        self.close()
        self._loader = loader

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


def _check_url(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise SourceError(
            f"cannot use --master {url}: it is not an http(s) URL",
            hint="write it as https://10.0.0.1:6443",
        )


def _fingerprint(path: str | None) -> Fingerprint:
    """Return a value that changes when a file's content may have; empty without a path."""
    if not path:
        return ()
    try:
        status = Path(path).expanduser().stat()
    except OSError:
        return (path,)
    return path, status.st_mtime_ns, status.st_size, status.st_ino


def _one_line(exc: BaseException) -> str:
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    place = f"{exc.filename}: " if isinstance(exc, OSError) and exc.filename else ""
    return place + (" ".join(text.split()) or type(exc).__name__)
