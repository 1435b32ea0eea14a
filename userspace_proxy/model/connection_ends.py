"""Which side ended a connection."""

from __future__ import annotations

import enum


class EndedBy(enum.StrEnum):
    """Which side ended a connection: for a clean end, the one that sent its FIN first.

    An endpoint that has sent no byte has been first unless its kernel had acknowledged the client's
    FIN.
    """

    NONE = ""
    """It goes on."""
    CLIENT = "client"
    ENDPOINT = "endpoint"
    PROXY = "proxy"
