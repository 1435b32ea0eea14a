import os

import pytest

from userspace_proxy_testing.sandbox.holder import enter_user, hold_command, read_line


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize(
    ("rootless", "user_pid", "expected"),
    [
        pytest.param(False, None, "unshare --net -- sh -c", id="root"),
        pytest.param(True, None, "unshare --user --map-root-user --net -- sh -c", id="first"),
        pytest.param(
            True,
            7,
            "nsenter --preserve-credentials --user --target 7 -- unshare --net -- sh -c",
            id="inside",
        ),
    ],
)
def test_the_command_creates_only_missing_namespaces(rootless, user_pid, expected):
    command = hold_command(rootless=rootless, user_pid=user_pid, sysctls=["net/a=1"])
    assert " ".join(command).startswith(expected)
    assert command[-1] == "net/a=1"


def test_entering_a_user_namespace_preserves_credentials():
    assert "--preserve-credentials" in enter_user(7)


def test_read_line_consumes_only_the_first_line(pipe):
    out, into = pipe
    os.write(into, b"ready\nmore\n")
    assert read_line(out, 1.0) == "ready"
    assert os.read(out, 10) == b"more\n"


def test_a_partial_line_is_returned_at_the_deadline(pipe):
    out, into = pipe
    os.write(into, b"rea")
    assert read_line(out, 0.0) == "rea"
