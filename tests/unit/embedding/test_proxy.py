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


def test_elsewhere_its_use_raises_one_sentence():
    code = "from tests.unit.other_systems import become; become('darwin'); import userspace_proxy"
    words = [sys.executable, "-c", f"{code}; print('imported'); userspace_proxy.Proxy"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout == "imported\n"
    assert done.stderr.splitlines()[-1] == (
        "userspace_proxy.errors.PlatformError: userspace-proxy runs on Linux only: "
        "Python on darwin has no epoll (use a Linux container, a virtual machine or WSL)"
    )
