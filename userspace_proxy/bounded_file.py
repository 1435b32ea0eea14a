"""Reads files whose size can't be trusted."""

from __future__ import annotations

import errno
from pathlib import Path


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: The file can't be read, or has more than ``bytes_max`` bytes, even if it reports
            fewer (a device).
    """
    with path.open("rb") as stream:
        content = stream.read(bytes_max + 1)
    if len(content) > bytes_max:
        shown = f"{bytes_max >> 20} MiB" if bytes_max >> 20 else f"{bytes_max >> 10} KiB"
        raise OSError(errno.EFBIG, f"it is larger than {shown}", str(path))
    return content
