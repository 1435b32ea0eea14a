"""All rows, by group, in the order of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Sequence

from . import (
    api_server,
    clients,
    endpoints,
    hooks,
    kernel_state,
    machine,
    memory,
    paths,
    processes,
)
from .row import Group, Row

GROUPS: Sequence[Group] = (
    endpoints.GROUP,
    paths.GROUP,
    hooks.GROUP,
    clients.GROUP,
    processes.GROUP,
    api_server.GROUP,
    kernel_state.GROUP,
    machine.GROUP,
    memory.GROUP,
)
ROWS: Sequence[Row] = tuple(row for group in GROUPS for row in group.rows)
