"""Writes files into one tar.gz, which appears either complete or not at all.

Rule 1: only the user can read the archive (on Windows: anyone with access to the folder).
Rule 2: an existing file is replaced only on request, and only by a complete archive.
Rule 3: the archive contains no user name or file time of this machine.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from userspace_proxy.errors import UserspaceProxyError

SUFFIX = ".tar.gz"


class ArchiveError(UserspaceProxyError):
    """The archive can't be written."""


class ReportFile(NamedTuple):
    """A file in an archive."""

    path: str
    """The path with slashes, relative to the archive's only folder."""
    body: bytes


def write_archive(
    path: Path, files: Iterable[ReportFile], *, made_at: float, replaces: bool = False
) -> int:
    """Write an archive; return its size in bytes.

    Args:
        files: The files, which are consumed one at a time.
        made_at: Unix time, used for all files.
        replaces: Whether an existing file may be replaced.

    Raises:
        ArchiveError: The file exists, or can't be written; nothing is left behind.
    """
    try:
        # Mode 0600: only this user may read the file.
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as exc:
        raise ArchiveError(f"cannot write {path}: {exc.strerror}") from exc
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            _write(raw, _folder_of(path), files, made_at)
            raw.flush()
            os.fsync(raw.fileno())
            size = raw.tell()
        if replaces:
            part.replace(path)
        else:
            _publish(part, path)
    except FileExistsError as exc:
        hint = "give another name, or --overwrite"
        raise ArchiveError(f"{path} exists", hint=hint) from exc
    except OSError as exc:
        raise ArchiveError(f"cannot write {path}: {exc.strerror}") from exc
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return size


def _publish(part: Path, path: Path) -> None:
    """Rename a file to its final name; raise FileExistsError if that is taken."""
    try:
        # Link, because a rename would replace a file that another program has created since the
        # caller's check.
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        # The file system doesn't support hard links, so check again and rename.
        if os.path.lexists(path):
            raise FileExistsError from None
        part.rename(path)


def _write(
    raw: io.BufferedWriter, folder: str, files: Iterable[ReportFile], made_at: float
) -> None:
    packed = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=made_at)
    with packed, tarfile.open(mode="w", fileobj=packed, format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            entry = tarfile.TarInfo(f"{folder}/{file.path}")
            entry.size, entry.mtime, entry.mode = len(file.body), int(made_at), 0o600
            archive.addfile(entry, io.BytesIO(file.body))


def _folder_of(path: Path) -> str:
    name = path.name.removesuffix(SUFFIX).removesuffix(".tgz").strip(".")
    return name or "userspace-proxy-report"
