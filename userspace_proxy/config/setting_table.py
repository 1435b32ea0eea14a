"""Defines the rows of the table of settings: all properties of a setting except its value.

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
    """The topics of help and docs, in order."""

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
    """The reason for the default; empty if it needs none."""
    flag: str
    """The flag's name without dashes."""
    aliases: tuple[str, ...] = ()
    """Other flags with the same meaning."""
    kube_field: str = ""
    """The field's path in KubeProxyConfiguration; empty if that has no such field."""
    own_field: str = ""
    """The field in UserspaceProxyConfiguration; empty if that has no such field."""
    shown_default: str = ""
    """The default in words if its value isn't self-explanatory: ``none``."""
    no_effect: str = ""
    """Why values other than the default have no effect; empty if they have one."""
    harmless: tuple[object, ...] = ()
    """Values that request the actual behaviour, so no warning is needed."""
    option: str = ""
    """The field of the proxy's options for the value; empty for the field of the same name."""
    convert: Callable[[Any], object] | None = None
    """Converts the setting's value to the option's value; None if both are equal."""


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
