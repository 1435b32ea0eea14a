"""Writes a kernel's initramfs without root: folders, links and files.

Source: Documentation/driver-api/early-userspace/buffer-format.rst (cpio, "newc").
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

_TRAILER = "TRAILER!!!"


def archive(files: Mapping[str, bytes], executable: Iterable[str] = ()) -> bytes:
    """Return an archive of these files and their folders.

    Args:
        files: Contents by path, without a leading slash.
        executable: The paths of programs.
    """
    programs = {*executable}
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
    entries: list[bytes] = []
    for number, name in enumerate(sorted(folders), 1):
        entries.append(_entry(number, name, stat.S_IFDIR | 0o755, b""))
    for number, (name, content) in enumerate(files.items(), len(entries) + 1):
        mode = 0o755 if name in programs else 0o644
        entries.append(_entry(number, name, stat.S_IFREG | mode, content))
    entries.append(_entry(0, _TRAILER, 0, b""))
    return b"".join(entries)


def below(folder: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files below a folder, with their paths in an archive."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08x" % value for value in fields) + encoded
    return _padded(head) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)
