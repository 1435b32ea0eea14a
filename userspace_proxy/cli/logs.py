"""Writes the log to stderr: one record per line, as text for people or as JSON for machines.

    2026-11-20T09:18:03.123Z INFO connection ended: idle service=shop/web client=10.0.0.1:4242
    {"time":"2026-11-20T09:18:03.123Z","level":"INFO","logger":…,"message":…,"service":…}

A log call has a fixed text, and values as ``extra``. Both forms contain the same values, except
that text doesn't repeat values in the message (``log_fields``). A traceback stays on its record's
line, because container runtimes treat every line as a record.

    --v=0…3    INFO
    --v=4…     and DEBUG
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime

from ..model.quoting import printable
from .log_writer import LogWriter

DEBUG_VERBOSITY = 4

_STDERR = 2
# The maximum time for which the exit waits for a slow reader of the log.
_FLUSH_S = 0.5

# The attributes of every record; all other attributes are from ``extra``.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# The fields of every JSON record; an ``extra`` of the same name mustn't replace them.
_RESERVED = frozenset(("time", "level", "logger"))
# Characters that require a value to be quoted. Source: logfmt as Heroku and Go's log/slog write it.
_NEEDS_QUOTES = frozenset(' ="\\')


def set_up_logging(form: str, verbosity: int, *, descriptor: int = _STDERR) -> LogWriter:
    """Log to a descriptor, for libraries only warnings; remove all previous handlers.

    Args:
        form: ``text`` or ``json``.
        verbosity: The value of ``--v``.
        descriptor: Defaults to stderr.

    Returns:
        The writer, which counts dropped lines.
    """
    formatter = JSONFormatter() if form == "json" else TextFormatter()
    handler = _Handler(descriptor, formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    # Log only warnings of libraries, which log tokens at lower levels.
    root.setLevel(logging.WARNING)
    is_debug = verbosity >= DEBUG_VERBOSITY
    logging.getLogger("userspace_proxy").setLevel(logging.DEBUG if is_debug else logging.INFO)
    return handler.writer


def write_behind_log(line: str) -> bool:
    """Queue a line for stderr, after the log; return False if no log is set up."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            handler.writer.put(line)
            return True
    return False


class _Handler(logging.Handler):
    """Queues each record; ``logging`` flushes the queue at exit."""

    def __init__(self, descriptor: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.writer = LogWriter(descriptor, describe_dropped=self._describe_dropped)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as exc:  # noqa: BLE001 - a bad record must not stop its caller
            # handleError would print to stderr, which may block.
            line = f"bug: cannot format a log record of {record.name}: {exc!r}"
        self.writer.put(line)

    def flush(self) -> None:
        """Wait until the log is written, for a limited time."""
        self.writer.flush(_FLUSH_S)

    def close(self) -> None:
        self.writer.close()
        super().close()

    def _describe_dropped(self, count: int) -> str:
        record = logging.makeLogRecord(
            {
                "name": __name__,
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": "log lines were dropped: stderr was not read, or could not be written",
                "lines": count,
            }
        )
        return self.format(record)


class TextFormatter(logging.Formatter):
    """Formats time, level and message, then fields missing from the message as ``key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        pairs = "".join(
            f" {key}={_logfmt(value)}"
            for key, value in _fields(record).items()
            if not (isinstance(value, str) and _has_word(message, value))
        )
        return f"{_time(record)} {record.levelname} {printable(message)}{pairs}"


class JSONFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        shown: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        shown |= {f"{k}_" if k in _RESERVED else k: v for k, v in _fields(record).items()}
        return json.dumps(shown, ensure_ascii=False, separators=(",", ":"), default=str)


def _has_word(message: str, value: str) -> bool:
    """Return whether a message contains a value as a whole word."""
    return (
        bool(value)
        and value in message
        and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", message) is not None
    )


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields passed as ``extra``, in their order, then traceback and stack, if any."""
    fields = {key: value for key, value in vars(record).items() if key not in _OWN}
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    elif record.exc_text:
        fields["traceback"] = record.exc_text
    if record.stack_info:
        fields["stack"] = record.stack_info
    return fields


def _logfmt(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        value = round(value, 6)
        value = int(value) if value.is_integer() else value
    text = str(value)
    if text and not _NEEDS_QUOTES.intersection(text) and text.isprintable():
        return text
    return json.dumps(text, ensure_ascii=False)
