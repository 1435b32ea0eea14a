"""Errors are one line with the way out."""

import errno
import inspect

import pytest

from userspace_proxy import errors
from userspace_proxy.errors import ListenError, UserspaceProxyError, shortage_hint

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


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(errno.EMFILE, "RLIMIT_NOFILE", id="process"),
        pytest.param(errno.ENFILE, "fs.file-max", id="node"),
        pytest.param(errno.ENOBUFS, "memory", id="buffers"),
        pytest.param(errno.ENOMEM, "memory", id="memory"),
    ],
)
def test_the_hint_of_a_shortage_is_that_of_its_cause(number, words):
    assert words in shortage_hint(number)
    assert ("RLIMIT_NOFILE" in shortage_hint(number)) == (number == errno.EMFILE)


def test_other_causes_are_no_shortage():
    assert shortage_hint(errno.EADDRINUSE) == shortage_hint(None) == ""
