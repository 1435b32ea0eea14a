"""Runs exec credential plugins, each once for all its users in this process.

    users[].user.exec ──▶ process ──stdout──▶ ExecCredential, until it expires or is refused
                             └──stderr──▶ the terminal, or the log

Rule 1: if a user is at the terminal, a plugin may use it to prompt, without a time limit. Otherwise
it has its own session and a time limit, and its process group is killed at its end; a daemon that
the plugin starts, such as a cache, leaves the group by setsid().
Rule 2: a cancelled request doesn't stop a plugin: a person may be typing, and other requests wait
for it.
Rule 3: if a run before the credential expires fails, the credential is used until it expires.
Rule 4: an error contains only the first line of stderr, because stdout contains the token.

Source: client-go's exec authenticator; Kubernetes, "client-go credential plugins".
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ...clocks import Clocks
from ...errors import InputError, UserspaceProxyError
from ...log_fields import FieldLogger
from .kubeconfig import ExecPlugin, KubeCluster

_log = FieldLogger("userspace_proxy.sources")

PLUGIN_S = 60.0
"""The maximum seconds for one run without a user at the terminal."""

_AHEAD_S = 60.0
_AHEAD_SHARE = 0.1
"""A credential is renewed _AHEAD_S before it expires, or this share of its lifetime if shorter."""
_APART_S = 5.0
"""The minimum seconds between two runs of which the second is due to a credential's expiry."""
_OUTPUT_BYTES_MAX = 1 << 20
_LOGGED_MAX = 1000
_READ_BYTES = 64 * 1024
# The form of times in RFC 3339; Python's parser also accepts other forms of ISO 8601.
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([.,]\d+)?(Z|[-+]\d\d:\d\d)\Z", re.ASCII)
_GO_ZERO = datetime(1, 1, 1, tzinfo=UTC)


class PluginError(UserspaceProxyError):
    """A plugin returned no usable credential; the text is the cause, on one line."""


@dataclass(frozen=True, slots=True)
class PluginCredential:
    """A credential that a plugin returned: a token, a certificate with its key, or both."""

    token: str
    certificate: bytes
    key: bytes
    obtained: float
    """Seconds since 1970."""
    expires: float | None
    """Seconds since 1970; None if the credential is valid until the server rejects it."""

    def is_due(self, now: float) -> bool:
        if self.expires is None:
            return False
        ahead = max(0.0, min(_AHEAD_S, (self.expires - self.obtained) * _AHEAD_SHARE))
        return now >= max(self.expires - ahead, self.obtained + _APART_S)

    def has_expired(self, now: float) -> bool:
        return self.expires is not None and now >= self.expires


@dataclass(slots=True)
class _SharedRun:
    """The credential of one plugin, for all its users in this process."""

    credential: PluginCredential | None = None
    running: asyncio.Task[PluginCredential] | None = None


_shared: dict[str, _SharedRun] = {}


async def plugin_credential(
    plugin: ExecPlugin,
    cluster: Mapping[str, Any] | None,
    *,
    is_attended: bool,
    refused: PluginCredential | None = None,
    clock: Callable[[], float] = Clocks.time,
) -> PluginCredential:
    """Return a plugin's credential; run the plugin if none is known, or it must be renewed.

    Args:
        cluster: The cluster information for the plugin; None if the plugin doesn't request it.
        is_attended: Whether a user is at the terminal.
        refused: A credential that the server has refused.
        clock: Returns seconds since 1970.

    Raises:
        PluginError: The plugin failed or its output is invalid, and no earlier credential is valid.
    """
    shared = _shared.setdefault(repr((plugin, cluster)), _SharedRun())
    known = shared.credential
    if known is not None and known is not refused and not known.is_due(clock()):
        return known
    running = shared.running
    loop = asyncio.get_running_loop()
    if running is None or running.done() or running.get_loop() is not loop:
        within_s = None if is_attended else PLUGIN_S
        running = loop.create_task(run_plugin(plugin, cluster, within_s=within_s, clock=clock))
        shared.running = running
        running.add_done_callback(partial(_note_end, shared))
    try:
        return await asyncio.shield(running)
    except PluginError:
        if known is None or known is refused or known.has_expired(clock()):
            raise
        # The credential is still valid: this was an early renewal, which the next request retries.
        return known


def _note_end(shared: _SharedRun, running: asyncio.Task[PluginCredential]) -> None:
    # Store the result here, because all waiting requests may have been cancelled.
    if not running.cancelled() and running.exception() is None:
        shared.credential = running.result()


def cluster_info(cluster: KubeCluster) -> dict[str, Any]:
    """Return the cluster info for a plugin, as kubectl passes it.

    Raises:
        OSError: The certificate authority can't be read.
    """
    authority = cluster.authority
    data = authority.data or (Path(authority.path).read_bytes() if authority.path else b"")
    fields = {
        "server": cluster.written,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.is_insecure,
        "certificate-authority-data": base64.b64encode(data).decode(),
        "proxy-url": cluster.proxy_url,
        "disable-compression": cluster.is_uncompressed,
    }
    return {**{name: value for name, value in fields.items() if value}, "config": cluster.extension}


async def run_plugin(
    plugin: ExecPlugin,
    cluster: Mapping[str, Any] | None,
    *,
    within_s: float | None,
    clock: Callable[[], float] = Clocks.time,
) -> PluginCredential:
    """Run a plugin and return its credential.

    Args:
        cluster: The cluster information for the plugin; None to pass none.
        within_s: Seconds until the plugin is killed; None: no limit, for a user at the terminal.
        clock: Returns seconds since 1970.

    Raises:
        PluginError: The plugin can't be started, failed, printed invalid output, or timed out.
    """
    shown = Path(plugin.command).name
    is_attended = within_s is None
    is_interactive = is_attended and plugin.mode != "Never" and os.isatty(0)
    if plugin.mode == "Always" and not is_interactive:
        raise PluginError(f"exec: {shown} needs a terminal (interactiveMode is Always)")
    environment = _environment(plugin, cluster, is_interactive=is_interactive)
    # Search this program's PATH, as client-go does, rather than the plugin's PATH.
    program = shutil.which(plugin.command) or plugin.command
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *plugin.args,
            env=environment,
            stdin=None if is_interactive else DEVNULL,
            stdout=PIPE,
            stderr=None if is_attended else PIPE,
            start_new_session=not is_attended,
        )
    except OSError as exc:
        problem = f"exec: {plugin.command} can't be started: {exc.strerror}"
        raise PluginError(problem, hint=plugin.install_hint) from exc
    try:
        async with asyncio.timeout(within_s):
            stdout, stderr = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            code = await process.wait()
    except TimeoutError as exc:
        raise PluginError(f"exec: {shown} did not exit within {within_s:g} s") from exc
    finally:
        # The plugin's children may still be running, with the pipes open. Children of another user
        # can't be killed.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            _kill(process, with_group=not is_attended)
        # Otherwise Python also waits for the end of the output, which a daemon may keep open.
        process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - nothing else does
        await process.wait()
    _log_stderr(shown, stderr)
    if code != 0:
        first = stderr.decode(errors="replace").strip().partition("\n")[0]
        raise PluginError(f"exec: {shown} ended with {code}" + (f": {first}" if first else ""))
    return _credential(stdout, plugin.api_version, shown, clock())


def _log_stderr(shown: str, stderr: bytes) -> None:
    if text := " ".join(stderr.decode(errors="replace").split()):
        fields = {"plugin": shown, "text": text[:_LOGGED_MAX]}
        _log.info("credential plugin %(plugin)s wrote to stderr: %(text)s", extra=fields)


def _kill(process: asyncio.subprocess.Process, *, with_group: bool) -> None:
    if with_group and hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    elif process.returncode is None:
        # An attended plugin shares this process's group, and Windows has no killpg, so the plugin's
        # children keep running.
        process.kill()


def _environment(
    plugin: ExecPlugin, cluster: Mapping[str, Any] | None, *, is_interactive: bool
) -> dict[str, str]:
    spec = {**({} if cluster is None else {"cluster": cluster}), "interactive": is_interactive}
    info = {"kind": "ExecCredential", "apiVersion": plugin.api_version, "spec": spec}
    return {**os.environ, **dict(plugin.env), "KUBERNETES_EXEC_INFO": json.dumps(info)}


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    """Read a stream to its end; return at most its first _OUTPUT_BYTES_MAX bytes."""
    kept = bytearray()
    while stream is not None and (data := await stream.read(_READ_BYTES)):
        kept += data[: _OUTPUT_BYTES_MAX - len(kept)]
    return bytes(kept)


def _credential(stdout: bytes, api_version: str, shown: str, now: float) -> PluginCredential:
    from ...model.document import decode
    from ...model.kubectl_yaml import parse_first

    try:
        document = parse_first(decode(stdout), place=shown)
    except InputError:
        # The reason is omitted, because it may quote a token.
        raise PluginError(
            f"exec: {shown} did not print an ExecCredential as JSON or YAML"
        ) from None
    value = document.value if document and isinstance(document.value, dict) else {}
    status = value.get("status")
    if not isinstance(status, dict):
        raise PluginError(f"exec: {shown} printed no ExecCredential with a status")
    if value.get("kind") not in (None, "", "ExecCredential"):
        raise PluginError(f"exec: {shown} printed another kind than ExecCredential")
    if value.get("apiVersion") != api_version:
        raise PluginError(f"exec: {shown} printed another apiVersion than {api_version}")
    names = ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")
    texts = [status.get(name) or "" for name in names]
    if not all(isinstance(text, str) for text in texts):
        raise PluginError(f"exec: {shown} printed a status with a field that is not text")
    token, certificate, key, expires = texts
    token = token.strip()
    if not token.isprintable():
        raise PluginError(f"exec: {shown} printed a token with a line break in it")
    if bool(certificate) != bool(key):
        raise PluginError(f"exec: {shown} printed only one of certificate and key")
    if not token and not certificate:
        raise PluginError(f"exec: {shown} printed neither a token nor a certificate and key")
    return PluginCredential(
        token, certificate.encode(), key.encode(), now, _moment(expires, shown) if expires else None
    )


def _moment(text: str, shown: str) -> float | None:
    """Return seconds since 1970; None for Go's zero time (no expiry). Raises PluginError."""
    try:
        moment = datetime.fromisoformat(text) if _RFC_3339.match(text) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise PluginError(f"exec: {shown} printed an expirationTimestamp that is no time")
    return None if moment == _GO_ZERO else moment.timestamp()
