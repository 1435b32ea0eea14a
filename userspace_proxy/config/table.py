"""One row of the table of settings: everything about a setting except its value.

Rule 1: flags, help, files, docs and validation come from these rows, and from nowhere else.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Any, Literal

from .kinds import Kind

Origin = Literal["default", "file", "flag"]

_METADATA_KEY = "setting"


class Group(enum.StrEnum):
    """Headings of help and docs, in their order."""

    SOURCE = "Where Services come from"
    NODE = "This node"
    CONNECTIONS = "Connections and flows"
    STEERING = "Steering"
    SERVERS = "Health, metrics and logs"
    ONCE = "Do one thing and exit"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as users meet it.

    Args:
        kind: How values are read and written.
        group: Its heading.
        help: One sentence, without a full stop.
        why: The reason of the default; what the default is stands beside it.
        flag: Without dashes.
        aliases: Other flags that mean the same.
        kube_field: Its path in KubeProxyConfiguration; empty: it has none.
        own_field: Its name in UserspaceProxyConfiguration; empty: it has none.
        shown_default: Says the default where its value doesn't: ``none``.
        no_effect: Why another value than the default changes nothing; empty: it does change.
        harmless: Values that ask for what happens anyway, so that nobody need be told.
    """

    kind: Kind
    group: Group
    help: str
    why: str
    flag: str
    aliases: tuple[str, ...] = ()
    kube_field: str = ""
    own_field: str = ""
    shown_default: str = ""
    no_effect: str = ""
    harmless: tuple[object, ...] = ()


def setting(default: Any, /, **row: Any) -> Any:
    """Declare a field of ``Settings`` with its row of the table."""
    return dataclasses.field(default=default, metadata={_METADATA_KEY: Setting(**row)})


def rows_of(settings_class: type) -> dict[str, Setting]:
    """Return name → row of a class of settings, in the order of its fields."""
    return {
        field.name: field.metadata[_METADATA_KEY]
        for field in dataclasses.fields(settings_class)
        if _METADATA_KEY in field.metadata
    }
