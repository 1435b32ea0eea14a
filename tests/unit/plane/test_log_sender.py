import logging

import pytest
from msgspec.structs import replace

from userspace_proxy.model import SocketAddress
from userspace_proxy.plane.log_sender import LogSender, current_levels, take_levels, write_record
from userspace_proxy.plane.messages import Logged

POD = SocketAddress("10.0.0.1", 80)
LOGGER, CONNECTIONS = "userspace_proxy.dataplane", "userspace_proxy.connections"


def logged(name=LOGGER, level=logging.WARNING, message="endpoint ejected", **fields):
    return Logged(name, level, 1_700_000_000.5, message, fields, "")


@pytest.fixture
def sent():
    """A logger, and the lines that its handler has sent."""
    lines, logger = [], logging.getLogger(f"{LOGGER}.test")
    handler = LogSender(lines.append)
    logger.addHandler(handler)
    yield logger, lines
    logger.removeHandler(handler)


def test_a_forwarded_log_line_contains_its_message_level_and_fields(sent):
    logger, lines = sent
    logger.warning("flow %s", "ended", extra={"endpoint": POD, "count": 3, "cause": None})
    (line,) = lines
    assert (line.logger, line.level, line.message) == (logger.name, logging.WARNING, "flow ended")
    assert line.fields == {"endpoint": "10.0.0.1:80", "count": 3, "cause": None}
    assert line.traceback == ""


def test_a_forwarded_log_line_contains_its_traceback(sent):
    logger, lines = sent
    try:
        {}["nobody"]
    except LookupError:
        logger.exception("a bug")
    assert lines[0].traceback.endswith("KeyError: 'nobody'")


def test_a_log_record_that_cannot_be_formatted_is_sent_as_an_error(sent, capsys):
    logger, lines = sent
    # Call the handler directly, because the logger would also call pytest's handler, which fails.
    (handler,) = logger.handlers
    handler.handle(logger.makeRecord(LOGGER, logging.WARNING, "f.py", 1, "%d", ("text",), None))
    (line,) = lines
    assert line.level == logging.ERROR
    assert line.message.startswith("bug: cannot format a log record: TypeError")
    assert capsys.readouterr().err == "", "the reader of stderr may have stalled"


def test_a_workers_line_is_logged_as_if_local(caplog):
    write_record(logged(endpoint="10.0.0.1:80"))
    (record,) = caplog.records
    assert (record.name, record.levelname) == (LOGGER, "WARNING")
    assert record.getMessage() == "endpoint ejected"
    assert (record.created, record.endpoint) == (1_700_000_000.5, "10.0.0.1:80")


def test_a_forwarded_traceback_is_logged(caplog):
    write_record(replace(logged(), traceback="Traceback: it broke"))
    assert "Traceback: it broke" in caplog.text


def test_percent_signs_in_a_forwarded_line_are_literal(caplog):
    write_record(logged(message="100 %s %d%"))
    assert caplog.messages == ["100 %s %d%"]


def test_a_forwarded_line_below_the_log_level_is_not_logged(caplog):
    caplog.set_level(logging.ERROR, logger=LOGGER)
    write_record(logged())
    assert caplog.records == []


def test_a_worker_cannot_log_under_another_name_or_override_record_fields(caplog):
    fields = {"levelno": 50, "name": "root", "msg": "forged", "args": ["x"]}
    write_record(replace(logged("asyncio"), fields=fields))
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (
        "userspace_proxy",
        logging.WARNING,
        "endpoint ejected",
    )


def test_a_worker_adopts_the_control_processs_log_levels(clean_logging):
    logging.getLogger(CONNECTIONS).setLevel(logging.ERROR)
    levels = current_levels()
    logging.getLogger(CONNECTIONS).setLevel(logging.DEBUG)
    lines = []
    take_levels(levels, LogSender(lines.append))
    logging.getLogger(CONNECTIONS).warning("connection complete")
    logging.getLogger(CONNECTIONS).error("told")
    assert [line.message for line in lines] == ["told"]


def test_a_memory_error_while_formatting_a_log_record_is_raised(sent):
    class NeedsMemory:
        def __str__(self):
            raise MemoryError

    logger, lines = sent
    (handler,) = logger.handlers
    record = logger.makeRecord(LOGGER, logging.WARNING, "f.py", 1, "%s", (NeedsMemory(),), None)
    with pytest.raises(MemoryError):
        handler.handle(record)
    assert lines == []
