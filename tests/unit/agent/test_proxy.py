"""The two ways to enter a proxy."""

import pytest

from userspace_proxy import Proxy
from userspace_proxy.agent.blocking import BlockingProxy


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
