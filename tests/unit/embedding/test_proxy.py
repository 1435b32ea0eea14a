"""The two ways to enter a proxy."""

import subprocess
import sys

import pytest

from userspace_proxy import Proxy
from userspace_proxy.embedding.blocking import BlockingProxy


def test_a_plain_with_names_the_two_ways_to_enter_it():
    words = r"use `async with Proxy\(…\)`, or `with Proxy.in_thread\(…\)`"
    with pytest.raises(TypeError, match=words), Proxy():
        pass


def test_no_steering_is_an_error_that_says_what_is_expected():
    with pytest.raises(TypeError, match="steering: expected a name such as 'none'"):
        Proxy(steering=None)


def test_the_proxy_in_a_thread_is_entered_by_with():
    proxy = Proxy.in_thread()
    assert isinstance(proxy, BlockingProxy)
    with proxy as entered:
        assert entered is proxy


# What macOS lacks: the first use of any of these names raises an AttributeError.
WITHOUT_EPOLL = """
import os, select, socket
for module, lacks in ((select, "EPOLL"), (os, "SPLICE"), (os, "PIDFD"), (socket, "NETLINK")):
    for name in [name for name in vars(module) if lacks in name.upper()]:
        delattr(module, name)
"""
NEEDS_LINUX = (
    f"userspace-proxy runs on Linux only: Python on {sys.platform} has no epoll "
    "(use a Linux container, a virtual machine or WSL)"
)


def _run_without_epoll(code):
    words = [sys.executable, "-c", WITHOUT_EPOLL + code]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def test_without_epoll_the_package_is_imported_and_its_use_raises_one_sentence():
    done = _run_without_epoll("import userspace_proxy; print('imported'); userspace_proxy.Proxy")
    assert done.stdout == "imported\n"
    assert done.stderr.splitlines()[-1] == f"userspace_proxy.errors.PlatformError: {NEEDS_LINUX}"


def test_without_epoll_the_command_says_so_in_one_line():
    run = "['run', '--steering=none', '--manifests=.']"
    done = _run_without_epoll(
        f"from userspace_proxy.cli import main; raise SystemExit(main({run}))"
    )
    assert (done.returncode, done.stderr) == (1, f"error: {NEEDS_LINUX}\n")
