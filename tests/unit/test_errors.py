"""Errors are one line with the way out."""

import inspect

import pytest

from userspace_proxy import errors
from userspace_proxy.errors import ListenError, UserspaceProxyError

ALL = [c for _, c in inspect.getmembers(errors, inspect.isclass)]


def test_the_way_out_stands_behind_the_message():
    error = ListenError("cannot listen on 192.0.2.1:80/TCP", hint="see ss -lntup")
    assert str(error) == "cannot listen on 192.0.2.1:80/TCP (see ss -lntup)"
    assert (error.message, error.hint) == ("cannot listen on 192.0.2.1:80/TCP", "see ss -lntup")


def test_a_message_that_says_it_all_needs_no_hint():
    assert str(ListenError("cannot listen")) == "cannot listen"


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_of_the_package_has_one_root(kind):
    assert issubclass(kind, UserspaceProxyError)
