"""The output of a command."""

import os

from userspace_proxy_testing.command_output import CommandOutput


def errors_of(*written):
    """Return the stored lines of a command that writes this text and exits."""
    ours, theirs = os.pipe()
    errors = CommandOutput(os.fdopen(ours, "rb", buffering=0), 2)
    for data in written:
        os.write(theirs, data)
    os.close(theirs)
    return errors.text()


def test_command_output_is_forwarded_and_stored(capfd):
    assert errors_of(b"one\ntw", b"o\nthree") == "one\ntwo\nthree"
    assert capfd.readouterr().err == "one\ntwo\nthree"


def test_only_the_last_output_lines_are_stored():
    assert errors_of(*(b"line %d\n" % number for number in range(50))).splitlines() == [
        f"line {number}" for number in range(30, 50)
    ]


def test_command_output_may_be_empty_or_invalid_utf_8():
    assert errors_of() == ""
    assert errors_of(b"\xff\n") == "\ufffd"


def test_reading_output_does_not_wait_for_a_child_that_keeps_stderr_open():
    ours, theirs = os.pipe()
    errors = CommandOutput(os.fdopen(ours, "rb", buffering=0), 2)
    try:
        assert errors.text() == ""
    finally:
        os.close(theirs)
        errors._thread.join(60)
