"""System calls on a real kernel; ``tests/simulation/test_calls_contract.py`` has other tests."""

import ast
import contextlib
import errno
import fcntl
import os
import re
import select
import socket
from pathlib import Path

import pytest

from userspace_proxy.dataplane import calls as calls_module
from userspace_proxy.dataplane.calls import SystemCalls

from .rig import open_sockets

PACKAGE = Path(calls_module.__file__).parents[1]


def open_pipes():
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    return sum(str(link.readlink()).startswith("pipe:") for link in links if link.is_symlink())


@pytest.fixture
def calls():
    calls = SystemCalls(100)
    with contextlib.closing(socket.socket()) as unconnected:
        unconnected.setblocking(False)
        yield calls, calls.adopt(unconnected)
        calls.disown(unconnected.fileno())
    calls.close_epoll()


def test_a_failed_system_call_returns_the_negative_errno(calls):
    kernel, fd = calls
    assert kernel.receive(fd) == -errno.ENOTCONN
    assert kernel.shut_down(fd) == -errno.ENOTCONN
    assert kernel.accept(fd) == (-errno.EINVAL, None)
    assert kernel.set_option(fd, 999, 999, 1) == -errno.ENOPROTOOPT
    assert kernel.splice(fd, fd, 1) == -errno.EINVAL
    assert kernel.watch(fd, select.EPOLLIN) == 0
    assert kernel.watch(fd, select.EPOLLIN) == -errno.EEXIST


def test_a_socket_that_fails_to_bind_or_connect_is_closed(calls):
    kernel, _ = calls
    before = open_sockets()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        number = kernel.open_bound(socket.AF_INET, "127.0.0.1", port, False)
        assert number == -errno.EADDRINUSE
    fd = kernel.open_bound(socket.AF_INET, "127.0.0.1", port, False)
    assert kernel.socket(fd).getsockname() == ("127.0.0.1", port)
    # TCP can't connect to a broadcast address.
    assert kernel.connect(fd, "255.255.255.255", 9, False) == -errno.ENETUNREACH
    assert open_sockets() == before


def test_connect_keeps_the_descriptor_of_the_socket(calls):
    kernel, _ = calls
    fd = kernel.open_stream(socket.AF_INET)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert kernel.connect(fd, *server.getsockname(), True) == fd
        assert kernel.socket(fd).getpeername() == server.getsockname()
    kernel.close(fd)


def test_a_pipe_has_the_requested_size_and_is_nonblocking(calls):
    kernel, _ = calls
    ends = kernel.open_pipe(1 << 20)
    assert fcntl.fcntl(ends[0], fcntl.F_GETPIPE_SZ) == 1 << 20
    assert not any(os.get_blocking(end) or os.get_inheritable(end) for end in ends)
    for end in ends:
        kernel.close(end)


def test_a_pipe_that_cannot_be_resized_is_closed(calls):
    kernel, _ = calls
    before = open_pipes()
    number, other = kernel.open_pipe(-1)
    assert number < 0
    assert other == -1
    assert open_pipes() == before


def test_the_epoll_descriptor_is_readable_while_events_are_pending(calls):
    kernel, fd = calls
    assert select.select([kernel.epoll_descriptor()], [], [], 0)[0] == []
    kernel.watch(fd, select.EPOLLOUT)
    assert select.select([kernel.epoll_descriptor()], [], [], 0)[0] == [kernel.epoll_descriptor()]


def test_close_leaves_no_descriptors_open():
    before = open_sockets()
    kernel = SystemCalls(1)
    fd = kernel.adopt(socket.socket())
    kernel.close(fd)
    kernel.close_epoll()
    assert open_sockets() == before


def declared_classes():
    """Return the source, base, attributes and methods' parameters of each declared class."""
    found = {}
    for path in PACKAGE.rglob("*.pxd"):
        text = f"{path.read_text()}\n"
        for name, base, body in re.findall(
            r"^cdef class (\w+)(?:\((\w+)\))?:\n((?:    .*\n|\n)*)", text, re.MULTILINE
        ):
            lines = re.findall(r"^    cdef (.*)$", body, re.MULTILINE)
            names = {part.split()[-1].strip("*") for line in lines for part in line.split(",")}
            methods = dict(re.findall(r"^    cpdef [^(]*?(\w+)\((.*)\)", body, re.MULTILINE))
            found[name] = path.with_suffix(".py"), base, names, methods
    return found


def test_declarations_for_the_compiler_match_the_classes():
    """A mismatch would only fail, or slow down method calls, in the compiled form."""
    declared = declared_classes()
    assert {"TcpConnection", "SystemCalls", "Durations"} <= declared.keys()
    for name, (source, base, names, methods) in declared.items():
        (found,) = (
            node
            for node in ast.parse(source.read_text()).body
            if isinstance(node, ast.ClassDef) and node.name == name
        )
        known = set(names)
        while base:
            _, base, inherited, _ = declared[base]
            known |= inherited
        assigned = {
            node.attr
            for node in ast.walk(found)
            if isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and ast.unparse(node.value) == "self"
        }
        # The compiled SystemCalls has attributes of its own.
        assert name == "SystemCalls" or assigned <= known, name
        defined = {
            node.name: len(node.args.args)
            for node in found.body
            if isinstance(node, ast.FunctionDef)
        }
        for method, parameters in methods.items():
            assert defined.get(method) == len(parameters.split(",")), (name, method)
