import os
import subprocess
from pathlib import Path

import pytest

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.sandbox.namespace import Namespace, explain_batch


class Here:
    """A holder without a namespace: commands run in the namespace of the tests."""

    pid = 42

    def enter(self):
        return ("env",)

    def release(self): ...

    def wait(self): ...


@pytest.fixture
def here():
    with Namespace("pod-a", Here()) as namespace:
        yield namespace


def test_output_and_status_are_returned(here):
    done = here.run(["sh", "-c", "cat; exit 3"], input="hello", check=False)
    assert (done.stdout, done.returncode) == ("hello", 3)


def test_a_command_without_input_does_not_read_the_callers_stdin(here):
    assert here.run(["cat"]).stdout == ""


def test_a_command_uses_no_http_proxy_by_default(here, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    show = ["sh", "-c", "echo ${http_proxy-none}"]
    assert here.run(show).stdout == "none\n"
    with here.popen(show, stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=60)[0] == "none\n"
    environment = {**os.environ, "http_proxy": "http://mine"}
    assert here.run(show, env=environment).stdout == "http://mine\n"
    assert here.run(["env", "http_proxy=http://mine", *show]).stdout == "http://mine\n"


def test_a_failed_command_is_reported_with_its_last_stderr_line(here):
    with pytest.raises(SandboxError) as caught:
        here.run(["sh", "-c", "echo one >&2; echo two >&2; exit 3"])
    assert str(caught.value).endswith("in pod-a: two; status 3")


def test_a_command_given_as_a_string_is_rejected(here):
    with pytest.raises(TypeError, match=r"cannot run 'ip addr': a command is a list: \['ip', 'ad"):
        here.run("ip addr")


def test_a_command_exceeding_its_timeout_is_killed(here):
    with pytest.raises(
        SandboxError,
        match=r"cannot run `sleep 60` in pod-a: still running after "
        "0.01 s",
    ):
        here.run(["sleep", "60"], timeout=0.01)


def test_closing_a_namespace_kills_its_processes():
    with Namespace("pod-a", Here()) as namespace:
        process = namespace.popen(["sleep", "60"])
    assert process.returncode == -9


def test_files_are_mounted_in_the_commands_own_mount_namespace(here):
    prefix = here.prefix_with_files({"/etc/resolv.conf": Path("mine")})
    assert prefix[:4] == ("env", "unshare", "--mount", "sh")
    assert prefix[-3:] == ("mine", "/etc/resolv.conf", "--")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(
            "Error: Nexthop has invalid gateway.\nCommand failed -:2\n",
            "cannot configure pod-a: ip route add default via 192.0.2.9: "
            "Nexthop has invalid gateway.",
            id="route",
        ),
        pytest.param(
            "Error: Unknown device type.\nCommand failed -:1\n",
            "cannot configure pod-a: ip link add v type veth: Unknown device type. "
            "(as root: modprobe -a veth bridge)",
            id="no-module",
        ),
        pytest.param(
            "sh: 1: cannot create /proc/sys/net/x: Directory nonexistent\n",
            "cannot configure pod-a: sh: 1: cannot create /proc/sys/net/x: Directory nonexistent",
            id="sysctl",
        ),
        pytest.param("", "cannot configure pod-a: no reason given", id="silent"),
    ],
)
def test_a_failed_configuration_is_reported_with_the_failing_line_if_known(said, expected):
    lines = ["link add v type veth", "route add default via 192.0.2.9"]
    assert str(explain_batch("pod-a", lines, said)) == expected
