import json
import logging
import os
import tempfile

import pytest

from userspace_proxy.cli.logs import set_up_logging, write_behind_log

AT = 1795166283.123456
"""The Unix time of 2026-11-20T09:18:03.123Z."""


class Stderr:
    """A file that replaces stderr."""

    def __init__(self, file):
        self._file = file
        self.descriptor = file.fileno()

    def text(self, log):
        """Flush, and return the whole output."""
        assert log.flush(10)
        return os.pread(self.descriptor, 1_000_000, 0).decode()


@pytest.fixture
def make_stderr():
    """Yield a function that creates files in place of stderr."""
    made = []

    def make():
        made.append(tempfile.TemporaryFile())  # noqa: SIM115 - closed below
        return Stderr(made[-1])

    yield make
    for file in made:
        file.close()


@pytest.fixture
def stderr(make_stderr):
    """A file that replaces stderr."""
    return make_stderr()


@pytest.fixture
def logged(clean_logging, make_stderr):
    """Return a function that logs one record in a format and returns the output."""

    def log(form, message, *args, verbosity=0, name="userspace_proxy.test", exc=None, **fields):
        stderr = make_stderr()
        log_writer = set_up_logging(form, verbosity, descriptor=stderr.descriptor)
        logger = logging.getLogger(name)
        exc_info = (type(exc), exc, exc.__traceback__) if exc else None
        record = logger.makeRecord(
            name, logging.INFO, "f.py", 1, message, args, exc_info, extra=fields
        )
        record.created = AT
        logger.handle(record)
        return stderr.text(log_writer)

    return log


def test_a_text_line_has_time_level_message_and_fields(logged):
    assert logged(
        "text", "connection complete", service="shop/web", client="10.0.0.1:4242", sent_bytes=7
    ) == (
        "2026-11-20T09:18:03.123Z INFO connection complete "
        "service=shop/web client=10.0.0.1:4242 sent_bytes=7\n"
    )


def test_a_text_line_omits_fields_already_in_the_message(logged):
    fields = {"service": "shop/web", "endpoint": "10.0.0.1:80", "count": 3, "client": ""}
    line = logged("text", "shop/web: 3 of 10.0.0.1 left", **fields)
    assert line.removeprefix("2026-11-20T09:18:03.123Z INFO ") == (
        'shop/web: 3 of 10.0.0.1 left endpoint=10.0.0.1:80 count=3 client=""\n'
    )
    assert json.loads(logged("json", "shop/web: left", **fields))["service"] == "shop/web"


def test_a_text_line_keeps_a_field_that_only_occurs_within_a_word(logged):
    line = logged("text", "credential plugin wrote to stderr", plugin="plug", text="to")
    assert line.endswith("stderr plugin=plug\n")


def test_a_json_line_has_the_time_level_logger_message_and_fields(logged):
    line = logged("json", "connection complete", service="shop/web", sent_bytes=7)
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "time": "2026-11-20T09:18:03.123Z",
        "level": "INFO",
        "logger": "userspace_proxy.test",
        "message": "connection complete",
        "service": "shop/web",
        "sent_bytes": 7,
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param("plain", "plain", id="plain"),
        pytest.param("two words", '"two words"', id="space"),
        pytest.param('say "hi"', '"say \\"hi\\""', id="quotes"),
        pytest.param("a=b", '"a=b"', id="equals"),
        pytest.param("a\nb", '"a\\nb"', id="line-end"),
        pytest.param("\x1b[31m", '"\\u001b[31m"', id="terminal-escape"),
        pytest.param("", '""', id="empty"),
        pytest.param("grün", "grün", id="non-ascii-letters"),
        pytest.param(None, "null", id="none"),
        pytest.param(True, "true", id="boolean"),
        pytest.param(0.25, "0.25", id="fraction"),
        pytest.param(1234567.0, "1234567", id="whole-float"),
        pytest.param(0.1 + 0.2, "0.3", id="rounded"),
    ],
)
def test_a_text_field_is_quoted_if_necessary(value, shown, logged):
    line = logged("text", "m", key=value)
    assert line == f"2026-11-20T09:18:03.123Z INFO m key={shown}\n"


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_lines_escape_control_and_bidi_characters(form, logged):
    line = logged(form, "read %s", "\x9b2J", name="\u2066", key="\u202etxt")
    assert line.rstrip("\n").isprintable()
    assert r"read \u009b2J" in line
    assert r"\u202etxt" in line


def test_line_breaks_in_a_message_are_escaped(logged):
    line = logged("text", "cannot read %s", 'a\n"b"')
    assert line == '2026-11-20T09:18:03.123Z INFO cannot read a\\n"b"\n'


def int_of(text):
    raise ValueError(text)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_part_of_its_records_line(form, logged):
    with pytest.raises(ValueError, match="boom") as caught:
        int_of("boom")
    line = logged(form, "failed", exc=caught.value, service="shop/web")
    assert line.count("\n") == 1
    assert "Traceback (most recent call last):\\n" in line
    assert "ValueError: boom" in line
    assert line.index("shop/web") < line.index("Traceback")


def test_an_extra_field_cannot_replace_a_json_field(logged):
    shown = json.loads(logged("json", "m", level="fake"))
    assert (shown["level"], shown["level_"]) == ("INFO", "fake")


def test_a_value_without_a_json_type_is_logged_as_text(logged):
    assert json.loads(logged("json", "m", error=ValueError("boom")))["error"] == "boom"


@pytest.mark.parametrize(
    ("verbosity", "is_debug"), [(0, False), (2, False), (3, False), (4, True), (9, True)]
)
def test_verbosity_4_and_above_enables_debug_logging(verbosity, is_debug, clean_logging, stderr):
    set_up_logging("text", verbosity, descriptor=stderr.descriptor)
    assert logging.getLogger("userspace_proxy.agent").isEnabledFor(logging.DEBUG) is is_debug
    assert logging.getLogger("userspace_proxy.agent").isEnabledFor(logging.INFO)


def test_libraries_log_only_warnings_and_errors(clean_logging, stderr):
    set_up_logging("text", 9, descriptor=stderr.descriptor)
    assert not logging.getLogger("aiohttp.access").isEnabledFor(logging.INFO)
    assert logging.getLogger("aiohttp.server").isEnabledFor(logging.WARNING)


def test_setting_up_logging_again_replaces_the_previous_setup(clean_logging, make_stderr):
    first, second = make_stderr(), make_stderr()
    old = set_up_logging("text", 0, descriptor=first.descriptor)
    new = set_up_logging("json", 0, descriptor=second.descriptor)
    logging.getLogger("userspace_proxy").info("once")
    assert first.text(old) == ""
    assert second.text(new).count("once") == 1


def test_write_behind_log_writes_a_line_after_all_log_records(clean_logging, stderr):
    log = set_up_logging("text", 0, descriptor=stderr.descriptor)
    logging.getLogger("userspace_proxy").info("logged")
    assert write_behind_log("error: last")
    first, last = stderr.text(log).splitlines()
    assert first.endswith("logged")
    assert last == "error: last"


def test_without_a_log_handler_nothing_is_written(clean_logging):
    logging.getLogger().handlers[:] = []
    assert not write_behind_log("error: last")


@pytest.mark.parametrize("form", ["text", "json"])
def test_dropped_lines_are_counted_in_the_logs_format(form, clean_logging):
    ours, theirs = os.pipe()
    log = set_up_logging(form, 0, descriptor=theirs)
    while not log.dropped:
        logging.getLogger("userspace_proxy").info("x" * 10_000)
    text = ""
    while "were dropped" not in text:
        text = os.read(ours, 65536).decode()
    said = text.splitlines()[-1]
    if form == "json":
        assert json.loads(said)["lines"] == log.dropped
    else:
        assert said.endswith(f"lines={log.dropped}")
    os.close(ours)
    os.close(theirs)


def test_an_unformattable_record_does_not_block_the_log(clean_logging, stderr):
    log = set_up_logging("text", 0, descriptor=stderr.descriptor)
    logging.getLogger("userspace_proxy").info("%d", "text")
    assert "cannot format a log record of userspace_proxy: TypeError" in stderr.text(log)
