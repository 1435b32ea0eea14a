"""The proxy of a sandbox: the socket of its status page, and the error if it doesn't start."""

import socket
import sys

import pytest

from tests.descriptors import descriptors_left
from tests.processes import started
from userspace_proxy.errors import ListenError, SandboxError
from userspace_proxy_testing.commands.sandbox_proxy import (
    error_line,
    last_line,
    page_socket,
    page_socket_in,
    running_proxy,
    wait_until_ready,
)
from userspace_proxy_testing.sandbox import Sandbox


def test_a_status_page_port_in_use_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}"):
            page_socket(port)


def test_the_default_port_falls_back_to_any_free_port():
    with page_socket(None) as first, page_socket(None) as second:
        assert first.getsockname()[1] != second.getsockname()[1]
    with (
        descriptors_left(0),
        pytest.raises(ListenError, match=r"127\.0\.0\.1:0: Too many open files"),
    ):
        page_socket(None)


def test_last_line_returns_the_last_log_line_or_reports_an_empty_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("")
    assert last_line(log) == "the log is empty"
    log.write_text("one\ntwo\n")
    assert last_line(log) == "two"


@pytest.mark.parametrize(
    ("lines", "quoted"),
    [
        (["error: one", "error: two", "2026-11-26T08:00:00Z INFO stopped"], "error: two"),
        (
            ["2026Z WARNING seen", "2026Z ERROR refused", "2026Z WARNING other"],
            "2026Z ERROR refused",
        ),
        (["2026Z INFO ERROR is a word", "the last"], "the last"),
    ],
)
def test_the_last_error_of_a_log_is_returned_or_else_its_last_line(tmp_path, lines, quoted):
    log = tmp_path / "log"
    log.write_text("\n".join(lines))
    assert error_line(log) == quoted


def test_a_proxy_that_exits_early_is_an_error_with_its_last_log_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("error: why it ended\n")
    with started(["true"]) as ended:
        ended.wait(30)
        with page_socket(0) as page:
            port = page.getsockname()[1]
        with pytest.raises(SandboxError, match="proxy: why it ended"):
            wait_until_ready(port, ended, log, lambda: False)


def test_the_status_page_is_served_inside_a_pod_and_health_outside(tmp_path):
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    log = tmp_path / "log"
    with page_socket(0) as health, Sandbox() as sandbox:
        pod = sandbox.add_pod("client")
        with (
            page_socket_in(pod) as page,
            running_proxy(sandbox, page, manifests, log, health=health) as proxy,
        ):
            wait_until_ready(health.getsockname()[1], proxy, log, lambda: False)
            # A folder without manifests is reported as a problem.
            done = pod.run([sys.executable, "-m", "userspace_proxy", "status"], check=False)
            assert done.stdout.startswith("node-1  local  0 Service ports")
            with pytest.raises(SandboxError, match="cannot open port 10249 in client"):
                page_socket_in(pod)


def test_the_proxy_becomes_ready_and_stops_at_the_end_of_the_with_block(tmp_path):
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    log = tmp_path / "log"
    with page_socket(0) as page, Sandbox() as sandbox:
        with running_proxy(sandbox, page, manifests, log) as proxy:
            wait_until_ready(page.getsockname()[1], proxy, log, lambda: False)
            assert proxy.poll() is None
        assert proxy.returncode == 0
