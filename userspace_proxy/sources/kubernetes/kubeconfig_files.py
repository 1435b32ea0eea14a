"""Finds and reads kubeconfigs: each file once, and again only after it has changed.

    --kubeconfig, or KUBECONFIG, or ~/.kube/config ──▶ Kubeconfig ──read──▶ ClientConfig

Rule 1: files that aren't regular, such as pipes, are read once per process.

Source: client-go, tools/clientcmd.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...bounded_file import read_bounded
from ...errors import InputError, SourceError

if TYPE_CHECKING:
    from ...model.document import Document
    from .kubeconfig import ClientConfig, KubeconfigFile

Fingerprint = tuple[object, ...]

_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """The kubeconfigs to read, and the entries to choose from them."""

    paths: tuple[str, ...]
    may_be_missing: bool = False
    """Whether missing files are ignored."""
    context: str = ""
    """The context to use; this field and the next two override what the files choose."""
    cluster: str = ""
    user: str = ""
    is_attended: bool = False
    """Whether a user is at the terminal, so that plugins may prompt there, without a time limit."""

    def __str__(self) -> str:
        return os.pathsep.join(self.paths)


def one_file(path: str) -> Kubeconfig | None:
    """Return the kubeconfig for ``--kubeconfig``, which must exist; None for an empty path."""
    return Kubeconfig((path,)) if path else None


def find_kubeconfig(environment: Mapping[str, str] = os.environ) -> Kubeconfig | None:
    """Return the kubeconfigs that kubectl reads by default; None if there are none.

    Windows sets USERPROFILE and not HOME.
    """
    if listed := environment.get("KUBECONFIG"):
        paths = tuple(dict.fromkeys(filter(None, listed.split(os.pathsep))))
    else:
        home = environment.get("HOME") or environment.get("USERPROFILE", "/")
        paths = (str(Path(home) / ".kube" / "config"),)
    return Kubeconfig(paths, may_be_missing=True) if any(map(_may_exist, paths)) else None


def _may_exist(path: str) -> bool:
    """Return whether a file exists; True if it can't be checked: reading it reports the reason."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        pass
    return True


def read_kubeconfig(kubeconfig: Kubeconfig, *, server: str = "") -> ClientConfig:
    """Read and merge the files; return the chosen config.

    Args:
        kubeconfig: The files, and the entries to choose.
        server: The server's URL, which overrides the cluster's server.

    Raises:
        SourceError: The files can't be read or used.
    """
    # Imported here because an agent in a pod needs no YAML.
    from .kubeconfig import read_client_config

    files = [file for path in kubeconfig.paths if (file := _file(path, kubeconfig)) is not None]
    if not files:
        raise SourceError(f"cannot read kubeconfig {kubeconfig}: No such file or directory")
    if all(file.document is None for file in files) and not server:
        raise SourceError(
            f"cannot use kubeconfig {kubeconfig}: it is empty",
            hint="its cluster's administrator, or `kubectl config`, writes one",
        )
    return read_client_config(
        files,
        context=kubeconfig.context,
        cluster=kubeconfig.cluster,
        user=kubeconfig.user,
        server=server,
    )


def fingerprint(path: str | None) -> Fingerprint:
    """Return a value that changes if a file's content may have changed; empty without a path."""
    if not path:
        return ()
    try:
        status = Path(path).expanduser().stat()
    except (OSError, RuntimeError, ValueError):
        return (path,)
    if not stat.S_ISREG(status.st_mode):
        return path, status.st_ino
    return path, status.st_mtime_ns, status.st_size, status.st_ino


class _KnownFile(NamedTuple):
    fingerprint: Fingerprint
    document: Document | None


_read: dict[str, _KnownFile] = {}
"""The files that this process has read, by absolute path."""


def _file(path: str, kubeconfig: Kubeconfig) -> KubeconfigFile | None:
    from .kubeconfig import KubeconfigFile

    try:
        full = Path(path).expanduser().absolute()
        known, now = _read.get(str(full)), fingerprint(str(full))
        if known is None or known.fingerprint != now:
            known = _read[str(full)] = _KnownFile(now, _document(full, path))
    except FileNotFoundError as exc:
        if kubeconfig.may_be_missing:
            return None
        raise _unreadable(path, exc) from exc
    except (OSError, RuntimeError, ValueError) as exc:
        raise _unreadable(path, exc) from exc
    except InputError as exc:
        raise SourceError(f"cannot use kubeconfig {exc.message}", hint=exc.hint) from exc
    return KubeconfigFile(path, full.parent, known.document)


def _document(full: Path, path: str) -> Document | None:
    from ...model.document import decode
    from ...model.kubectl_yaml import parse_first

    return parse_first(decode(read_bounded(full, _BYTES_MAX)), place=path)


def _unreadable(path: str, exc: Exception) -> SourceError:
    text = (isinstance(exc, OSError) and exc.strerror) or str(exc)
    return SourceError(f"cannot read kubeconfig {path}: {text}")
