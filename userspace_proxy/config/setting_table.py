"""One row of the table of settings: everything about a setting except its value.

Rule 1: flags, help, files, docs, validation and the options of the proxy use only these rows.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .kinds import Kind

Origin = Literal["default", "file", "flag"]

_METADATA_KEY = "setting"


class Topic(enum.StrEnum):
    """The topics of help and docs, in their order."""

    SOURCE = "Where Services come from"
    NODE = "This node"
    CONNECTIONS = "Connections and flows"
    STEERING = "Steering"
    SERVERS = "Health, metrics, DNS and logs"
    ONCE = "Do one thing and exit"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as users see it."""

    kind: Kind
    topic: Topic
    help: str
    """One sentence, without a full stop."""
    why: str
    """The reason for the default."""
    flag: str
    """Without dashes."""
    aliases: tuple[str, ...] = ()
    """Other flags with the same meaning."""
    kube_field: str = ""
    """Its path in KubeProxyConfiguration; may be empty."""
    own_field: str = ""
    """Its name in UserspaceProxyConfiguration; may be empty."""
    shown_default: str = ""
    """The default in words, if its value isn't clear: ``none``."""
    no_effect: str = ""
    """Why other values than the default change nothing; empty: they do."""
    harmless: tuple[object, ...] = ()
    """Values that request what happens anyway, so no warning is needed."""
    option: str = ""
    """The field of the proxy's options that has the value; empty: the one with its own name."""
    convert: Callable[[Any], object] | None = None
    """Returns the option's value from the setting's; None: they are the same."""


def setting(default: Any, /, **row: Any) -> Any:
    """Declare a field of ``Settings`` with its row."""
    return dataclasses.field(default=default, metadata={_METADATA_KEY: Setting(**row)})


def rows_of(settings_class: type) -> dict[str, Setting]:
    """Return the rows of a class of settings by name, in the order of its fields."""
    return {
        field.name: field.metadata[_METADATA_KEY]
        for field in dataclasses.fields(settings_class)
        if _METADATA_KEY in field.metadata
    }
