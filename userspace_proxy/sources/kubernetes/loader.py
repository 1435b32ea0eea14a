"""kubernetes-asyncio's kubeconfig loader, with keys in memory and plugins that have a deadline.

The library writes certificates and keys from a kubeconfig or a plugin to files in /tmp, where they
remain after a crash, and leaks a descriptor of each. Here they are memory files (memfd_create),
which OpenSSL opens by their names below /proc/self/fd. Only Linux has these; on other systems
:class:`TemporaryFiles` takes their place.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from .library import Library
from .plugin import PluginError, run_plugin

# As in kubernetes-asyncio: that long before a token expires, the plugin runs again.
_AHEAD = timedelta(minutes=5)
_NEVER = datetime.max.replace(tzinfo=UTC)


class KeyFiles(Protocol):
    """Files for OpenSSL, by name."""

    def put(self, name: str, content: bytes) -> str:
        """Return the path of a file with this content; it replaces the one of the same name.

        The file and its path stay the same while the content does.
        """
        ...

    def close(self) -> None:
        """Remove all files; idempotent."""
        ...


def make_key_files() -> KeyFiles:
    """Return the files that leave the least behind on this system."""
    return MemoryFiles() if hasattr(os, "memfd_create") else TemporaryFiles()


class TemporaryFiles:
    """Files in a folder that only this user may enter; they remain after a crash."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="userspace-proxy-")

    def put(self, name: str, content: bytes) -> str:
        """Part of KeyFiles."""
        path = Path(self._folder.name, name)
        # Otherwise its time would change, and with it connections' certificates.
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
        return str(path)

    def close(self) -> None:
        """Part of KeyFiles."""
        self._folder.cleanup()


class MemoryFiles:
    """Files that aren't in the file system, by name."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, int]] = {}

    def put(self, name: str, content: bytes) -> str:
        """Part of KeyFiles."""
        have, descriptor = self._files.get(name, (None, -1))
        if have != content:
            self._close(descriptor)
            descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
            self._files[name] = content, descriptor
            with os.fdopen(os.dup(descriptor), "wb") as stream:
                stream.write(content)
        return f"/proc/self/fd/{descriptor}"

    def close(self) -> None:
        """Part of KeyFiles."""
        files, self._files = self._files, {}
        for _, descriptor in files.values():
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        if descriptor >= 0:
            os.close(descriptor)


def make_loader(library: Library, kubeconfig: str, *, plugin_s: float) -> Any:
    """Return a ``KubeConfigLoader`` for a file.

    It has two more methods: after ``expire()`` the next load runs the plugin again, and
    ``close()`` removes the files with keys.

    Args:
        plugin_s: Seconds for one run of an exec plugin.
    """
    kube_config = library.kube_config

    class Loader(kube_config.KubeConfigLoader):  # type: ignore[misc,name-defined]
        _cluster: Any
        _user: Any

        def __init__(self, **more: Any) -> None:
            super().__init__(**more)
            self._files = make_key_files()
            self._expiry: datetime | None = None
            node, files = kube_config.ConfigNode, self._files
            self._cluster = _with_files(node, files, self._cluster, ("certificate-authority",))
            self._user = _with_files(node, files, self._user, ("client-certificate", "client-key"))

        def expire(self) -> None:
            self._expiry = None

        def close(self) -> None:
            self._files.close()

        async def load_from_exec_plugin(self) -> bool:
            """Part of KubeConfigLoader: set the plugin's token, certificate, or both."""
            if self._expiry is not None and datetime.now(UTC) < self._expiry - _AHEAD:
                return True
            folder = Path(self._user.path or ".").parent.absolute()
            spec = self._user["exec"].value
            status = await run_plugin(spec, folder=folder, within_s=plugin_s)
            token, certificate = status.get("token"), status.get("clientCertificateData")
            key = status.get("clientKeyData")
            if not token and not (certificate and key):
                raise PluginError(
                    "exec: the plugin returned neither a token nor a certificate and key"
                )
            if token:
                self.token = f"Bearer {token}"
            if certificate and key:
                self.cert_file = self._files.put("plugin-certificate", certificate.encode())
                self.key_file = self._files.put("plugin-key", key.encode())
            self._expiry = _expiry(status.get("expirationTimestamp"))
            return True

    merged = kube_config.KubeConfigMerger(kubeconfig)
    return Loader(
        config_dict=merged.config, config_base_path=None, config_persister=merged.save_changes
    )


def _with_files(
    make_node: Callable[..., Any], files: KeyFiles, node: Any, keys: Sequence[str]
) -> Any:
    """Return a part of a kubeconfig with files instead of data."""
    if node is None or not isinstance(node.value, dict):
        return node
    # A copy: the library may write the original, with the data, back to the file.
    value = dict(node.value)
    for key in keys:
        data = value.pop(f"{key}-data", None)
        if data:
            value[key] = files.put(key, base64.b64decode(data))
    return make_node(node.name, value, node.path)


def _expiry(text: str | None) -> datetime:
    """Return when a plugin's credential expires; without a time, when the server rejects it."""
    if not text:
        return _NEVER
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
