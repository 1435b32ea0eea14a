"""Logs texts that name the fields of their records, so that each message is complete by itself.

    _log.warning("%(service)s: endpoint ejected: %(cause)s", extra={"service": …, "cause": …})

Rule 1: a text is fixed, and values are fields: JSON contains both. A message that names an object
and its cause is understood where only messages are shown, as by pytest.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any


class FieldLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose texts may refer to the fields in ``extra``: ``%(service)s``."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Part of LoggerAdapter, which has no fields of its own to add."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        fields = kwargs.get("extra")
        if fields and not args:
            args = (fields,)
        # The record shows where the caller is, not this module.
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        super().log(level, msg, *args, **kwargs)
