"""Runs an exec credential plugin in its own process group, which ends with the plugin.

    users[].user.exec ──▶ process in a session of its own ──stdout──▶ ExecCredential's status
                                     └── it ended, or ran for too long: its process group is killed

Rule 1: both outputs are read at the same time, and limited, so a plugin that writes much to stderr
doesn't hang.
Rule 2: a plugin runs again whenever its credential expires, so children that it leaves in its
group would accumulate. A daemon that it starts, such as a cache, leaves the group by setsid().
Rule 3: an error contains only the first line of stderr, because stdout contains the token.

Source: client-go's exec authenticator; Kubernetes, "client-go credential plugins".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import UserspaceProxyError

_OUTPUT_BYTES_MAX = 1 << 20
_READ_BYTES = 64 * 1024


class PluginError(UserspaceProxyError):
    """A plugin returned no usable credential; the text is the cause, in one line."""


async def run_plugin(spec: Mapping[str, Any], *, folder: Path, within_s: float) -> dict[str, Any]:
    """Run a plugin and return the ``status`` of its ExecCredential.

    Args:
        spec: ``users[].user.exec`` of a kubeconfig.
        folder: The kubeconfig's, to which a command with a slash is relative.
        within_s: Seconds until the plugin is killed.

    Raises:
        PluginError: The plugin failed, printed something else, or didn't exit in time.
        OSError: It can't be started.
    """
    for key in ("command", "apiVersion"):
        if not isinstance(spec.get(key), str):
            raise PluginError(f"exec: missing key '{key}'")
    command = spec["command"]
    program = command if Path(command).name == command else str(folder / command)
    process = await asyncio.create_subprocess_exec(
        program,
        *map(str, spec.get("args") or ()),
        env=_environment(spec),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(within_s):
            stdout, stderr = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            code = await process.wait()
    except TimeoutError as exc:
        raise PluginError(f"exec: {command} did not exit within {within_s:g} s") from exc
    finally:
        # Its children may run on and keep the pipes open. Those of another user can't be killed.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            _kill(process)
        await process.wait()
    if code != 0:
        first = stderr.decode(errors="replace").strip().partition("\n")[0]
        raise PluginError(f"exec: {command} ended with {code}" + (f": {first}" if first else ""))
    return _status(stdout, spec["apiVersion"], command)


def _kill(process: asyncio.subprocess.Process) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        # Windows has no process groups, so children of the plugin remain.
        process.kill()


def _environment(spec: Mapping[str, Any]) -> dict[str, str]:
    info = {
        "apiVersion": spec["apiVersion"],
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    more = {str(item["name"]): str(item["value"]) for item in spec.get("env") or ()}
    return {**os.environ, **more, "KUBERNETES_EXEC_INFO": json.dumps(info)}


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    """Read to the end; return at most _OUTPUT_BYTES_MAX."""
    assert stream is not None
    kept = bytearray()
    while data := await stream.read(_READ_BYTES):
        kept += data[: _OUTPUT_BYTES_MAX - len(kept)]
    return bytes(kept)


def _status(stdout: bytes, api_version: str, command: str) -> dict[str, Any]:
    try:
        credential = json.loads(stdout)
    except ValueError:
        # Without the decoder's message, which may quote a token.
        raise PluginError(f"exec: {command} did not print an ExecCredential as JSON") from None
    status = credential.get("status") if isinstance(credential, dict) else None
    if not isinstance(status, dict):
        raise PluginError(f"exec: {command} printed no ExecCredential with a status")
    if credential.get("apiVersion") != api_version:
        raise PluginError(f"exec: {command} printed another apiVersion than {api_version}")
    return status
