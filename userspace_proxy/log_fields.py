"""Logs messages that quote their records' fields, so that each message is complete by itself.

    _log.warning("%(service)s: endpoint ejected: %(cause)s", extra={"service": …, "cause": …})

Rule 1: texts are fixed, and values are fields; JSON logs contain both. A message that names the
object and the cause is clear even where only messages are shown, as in pytest.
Rule 2: a field ``remedy`` that isn't empty follows the text in parentheses, as in an exception.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any


class FieldLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose texts may quote the fields in ``extra``: ``%(service)s``."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Return the arguments unchanged, because this logger adds no fields."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        fields = kwargs.get("extra")
        if fields and not args:
            msg = f"{msg} (%(remedy)s)" if fields.get("remedy") else msg
            args = (fields,)
        # Add a stack level, so that the record shows the caller's location, not this module's.
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        super().log(level, msg, *args, **kwargs)
