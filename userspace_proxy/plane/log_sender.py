"""Sends workers' log records to the control process, which alone writes the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from .messages import Logged

LOGGERS = ("userspace_proxy", "userspace_proxy.connections")

# The attributes that every record has; other attributes were passed as ``extra``.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogSender(logging.Handler):
    """A log handler that sends each record as a message."""

    def __init__(self, send: Callable[[Logged], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line_of(record)
        except MemoryError:
            raise
        except Exception as exc:  # noqa: BLE001 - a bad record must not stop its caller
            # Don't call handleError, which writes to stderr itself and may block.
            bug = f"bug: cannot format a log record: {exc!r}"
            line = Logged(record.name, logging.ERROR, record.created, bug, {}, "")
        self._send(line)

    def _line_of(self, record: logging.LogRecord) -> Logged:
        fields = {k: _plain(v) for k, v in vars(record).items() if k not in _OWN}
        traceback = ""
        if record.exc_info:
            traceback = logging.Formatter().formatException(record.exc_info)
        return Logged(
            record.name, record.levelno, record.created, record.getMessage(), fields, traceback
        )


def current_levels() -> dict[str, int]:
    """Return this process's log levels by logger."""
    return {name: logging.getLogger(name).getEffectiveLevel() for name in LOGGERS}


def take_levels(levels: Mapping[str, int], handler: logging.Handler) -> None:
    """Set the levels of loggers, and make ``handler`` the root logger's only handler."""
    root = logging.getLogger()
    root.handlers[:] = [handler]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def write_record(line: Logged) -> None:
    """Log a worker's record in this process."""
    logger = logging.getLogger(line.logger if line.logger.startswith(LOGGERS[0]) else LOGGERS[0])
    if not logger.isEnabledFor(line.level):
        return
    fields = {key: value for key, value in line.fields.items() if key not in _OWN}
    logger.handle(
        logging.makeLogRecord(
            {
                **fields,
                "name": logger.name,
                "levelno": line.level,
                "levelname": logging.getLevelName(line.level),
                "created": line.created,
                "msg": line.message,
                "exc_text": line.traceback or None,
            }
        )
    )


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
