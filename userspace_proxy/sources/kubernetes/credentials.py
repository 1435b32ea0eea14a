"""The address of the API server and the credentials for it, kept fresh.

    kubeconfig ─┐
    pod's account ─┼──▶ kubernetes-asyncio's Configuration ──▶ header, TLS files
    --master ───┘

Rule 1: tokens and files are looked at again while the program runs: before a request when
a minute has passed, and at once after a 401. Bound tokens live an hour.
Rule 2: at the start what is wrong ends the run (SourceError); later it is trouble like any
other, and tried again.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from ...errors import SourceError
from .kubeconfig import check_kubeconfig
from .library import Library, import_library
from .loader import make_loader
from .plugin import PluginError
from .responses import ConnectionTrouble

PLUGIN_S = 60.0
"""For one run of an exec plugin."""
REFRESH_S = 60.0
"""Between two looks at tokens and files; kubernetes-asyncio's period for a pod's token."""
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

# Also for a token endpoint, for which kubernetes-asyncio itself waits for ever.
_LOAD_S = PLUGIN_S + 5.0
_BEARER = "BearerToken"
_HOST_VARIABLE = "KUBERNETES_SERVICE_HOST"
# What kubernetes-asyncio raises for a bad kubeconfig: some on purpose, some by accident.
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
    """The address of an API server, and what to show it.

    Args:
        kubeconfig: A kubeconfig file; empty: none.
        master: The server's URL instead of the one in the kubeconfig; without one,
            nothing is shown to it. Both empty: the server of the pod that we are in.
        service_account: Where a pod finds its token and the server's certificate.

    Source: kube-proxy's --kubeconfig and --master.
    """

    def __init__(
        self, *, kubeconfig: str = "", master: str = "", service_account: Path = SERVICE_ACCOUNT
    ) -> None:
        self._kubeconfig = kubeconfig
        self._master = master.rstrip("/")
        self._service_account = service_account
        self._library: Library
        self._loader: Any = None
        self._seen: Fingerprint = ()
        """The kubeconfig file, as it was when it was loaded."""
        self._refreshed_s = 0.0
        self.configuration: Any = None
        """kubernetes-asyncio's, for its transport."""

    @property
    def location(self) -> str:
        """The server's URL; before :meth:`load`, what leads to it."""
        if self.configuration is not None:
            return str(self.configuration.host)
        return self._master or self._kubeconfig or "the API server of this pod"

    @property
    def words(self) -> str:
        """What we show the server, for a person who must check it."""
        if self._kubeconfig:
            return f"the credentials in {self._kubeconfig}"
        if self._master:
            return "--kubeconfig: none is given"
        return f"the token in {self._service_account / 'token'}"

    async def load(self, now: float) -> None:
        """Read everything for the first time.

        Raises:
            SourceError: What is wrong, where, and the way out.
        """
        self._library = import_library()
        try:
            async with asyncio.timeout(_LOAD_S):
                await self._load(now)
        except (*_LOADING_ERRORS, self._library.config_error) as exc:
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
        """Look at tokens and files again, if it is time.

        Args:
            now: Seconds, monotonic.
            is_refused: The server has just said 401: it is time.

        Raises:
            ConnectionTrouble: They can't be read now; the old ones stay.
        """
        if not is_refused and now - self._refreshed_s < REFRESH_S:
            return
        try:
            async with asyncio.timeout(_LOAD_S):
                await self._load_again(now, is_refused=is_refused)
        except (*_LOADING_ERRORS, self._library.config_error) as exc:
            raise ConnectionTrouble(f"cannot refresh {self.words}: {_one_line(exc)}") from exc
        except SourceError as exc:
            raise ConnectionTrouble(str(exc)) from exc
        self._refreshed_s = now

    async def header(self) -> dict[str, str]:
        """Return the header that says who we are; empty where a certificate does.

        Raises:
            ConnectionTrouble: The token's file can't be read.
        """
        try:
            value = await self.configuration.get_api_key_with_prefix(_BEARER)
        except (OSError, ValueError, self._library.config_error) as exc:
            raise ConnectionTrouble(f"cannot read {self.words}: {_one_line(exc)}") from exc
        # A token file may end with a newline, which no header may contain.
        return {"Authorization": value.strip()} if value else {}

    def tls_files(self) -> Fingerprint:
        """Return what changes when the certificate of either side has changed."""
        names = ("ssl_ca_cert", "cert_file", "key_file")
        return tuple(_fingerprint(getattr(self.configuration, name)) for name in names)

    async def _load_again(self, now: float, *, is_refused: bool) -> None:
        if self._kubeconfig and _fingerprint(self._kubeconfig) != self._seen:
            await self._load(now)
        elif self._loader is not None:
            if is_refused:
                self._loader.ask_again()
            await self._loader.load_and_set(self.configuration)

    def check(self) -> None:
        """See whether there is a kubeconfig that leads to a server, if one is to be used.

        Raises:
            SourceError: There isn't.
        """
        if self._kubeconfig:
            check_kubeconfig(self._kubeconfig)

    async def _load(self, now: float) -> None:
        configuration = self._library.configuration()
        # As client-go, which doesn't ask for key identifiers in certificates; Python 3.13 does.
        configuration.disable_strict_ssl_verification = True
        if self._kubeconfig:
            self.check()
            self._seen = _fingerprint(self._kubeconfig)
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
    """Return what differs when a file's content may; empty where there is no file."""
    if not path:
        return ()
    try:
        status = Path(path).expanduser().stat()
    except OSError:
        return (path,)
    return path, status.st_mtime_ns, status.st_size, status.st_ino


def _one_line(exc: BaseException) -> str:
    said = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    place = f"{exc.filename}: " if isinstance(exc, OSError) and exc.filename else ""
    return place + (" ".join(said.split()) or type(exc).__name__)
