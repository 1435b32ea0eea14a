"""Implements the command ``report``, which writes one archive about all nodes.

answers of agents, logs, objects ──▶ safe texts ──▶ FILE.tar.gz
"""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from userspace_proxy.cli.all_nodes import settings_of
from userspace_proxy.cli.command import DONE, Given
from userspace_proxy.cli.running import run
from userspace_proxy.cli.terminal import write
from userspace_proxy.clocks import Clocks
from userspace_proxy.errors import ConfigError

from .followed import open_reader

if TYPE_CHECKING:
    from ..nodes.report.contents import Contents

_KEY_BYTES = 32


def report(given: Given) -> int:
    """Write the archive, and print its contents; return the exit status.

    Raises:
        UserspaceProxyError: A flag is wrong, no agent can be found, or the file can't be written.
    """
    from ..nodes.report.archive import SUFFIX, write_archive
    from ..nodes.report.contents import listed

    made_at = Clocks.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(made_at))
    path = Path(given.values.get("file") or f"userspace-proxy-report-{stamp}{SUFFIX}")
    replaces = given.is_on("overwrite")
    if path.is_dir():
        raise ConfigError(f"--file: {path} is a folder", hint="name a file")
    if path.exists() and not replaces:
        raise ConfigError(f"--file: {path} exists", hint="give another name, or --overwrite")
    contents = run(_gather(given, made_at))
    size = write_archive(path, contents.files(), made_at=made_at, replaces=replaces)
    lines = [
        f"{path}: {size / 1024:,.0f} KiB, of {contents.count:,} files",
        *listed(contents.missing),
    ]
    write(sys.stdout, "".join(f"{line}\n" for line in lines))
    return DONE


async def _gather(given: Given, made_at: float) -> Contents:
    from ..nodes.merged import services_to_ask
    from ..nodes.report.contents import Contents
    from ..nodes.report.gathering import gather, make_scrubber

    key = secrets.token_bytes(_KEY_BYTES) if given.is_on("anonymous") else None
    async with open_reader(given, settings_of(given)) as reader:
        all_nodes = await reader.first()
        if also := services_to_ask(all_nodes):
            all_nodes = await reader.first(also=also)
        scrubber, unknown = await make_scrubber(reader.client, key)
        material = await gather(reader.client, all_nodes, made_at=made_at, unknown=unknown)
    return Contents(material, scrubber)
