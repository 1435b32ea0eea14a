"""The values that a test may pass as backends, and the errors for other values."""

import functools
import re

import pytest

from userspace_proxy_testing.backend_arguments import read_backends, stream_handler


async def echo(reader, writer):
    """Handle a stream by doing nothing."""


class Handler:
    """An object with a method that handles a stream."""

    async def __call__(self, reader, writer):
        pass


def plain(reader, writer):
    """Do nothing; only a coroutine function may have these arguments."""


def price(request, currency="EUR"):
    return f"{request.path}: 7 {currency}"


def test_a_number_is_read_as_that_many_default_backends():
    assert read_backends(2, "TCP") == [None, None]
    assert read_backends(0, "UDP") == []


def test_backends_can_be_given_as_an_iterator():
    likes = ["127.0.0.1:80", ("127.0.0.1", 81), ["redis-server"], echo, None]
    assert read_backends(iter(likes), "TCP") == likes


@pytest.mark.parametrize(
    ("backends", "protocol", "error", "words"),
    [
        pytest.param(-1, "TCP", ValueError, "backends: -1 is less than 0", id="negative"),
        pytest.param(True, "TCP", TypeError, "expected a number or a list, got True", id="bool"),
        pytest.param(2.0, "TCP", TypeError, "expected a number or a list, got 2.0", id="float"),
        pytest.param(None, "TCP", TypeError, "a number or a list, got None", id="none"),
        pytest.param("127.0.0.1:80", "TCP", TypeError, "list, got '127.0.0.1:80'", id="text"),
        pytest.param([80], "TCP", TypeError, "backend 80: expected a function, a", id="number"),
        pytest.param(["redis -v"], "TCP", ValueError, "a list: ['redis', '-v']", id="command"),
        pytest.param(["web:80"], "TCP", ValueError, "'web:80': expected an IP address", id="name"),
        pytest.param([("a",)], "TCP", TypeError, "or a tuple of IP and port", id="tuple"),
        pytest.param([[]], "TCP", TypeError, "backend []: expected the words of", id="no-words"),
        pytest.param([["a", 5]], "TCP", TypeError, "['a', 5]: expected the words", id="no-text"),
        pytest.param([["a"]], "UDP", TypeError, "a command can't be a UDP", id="udp-command"),
        pytest.param([echo], "UDP", TypeError, "backend echo: a function can't be", id="udp"),
        pytest.param([lambda: ""], "TCP", TypeError, "it needs 0 arguments", id="no-argument"),
        pytest.param([plain], "TCP", TypeError, "plain: a function of a reader", id="not-async"),
    ],
)
def test_an_invalid_backend_argument_is_rejected_with_the_reason(backends, protocol, error, words):
    with pytest.raises(error, match=re.escape(words)):
        read_backends(backends, protocol)


@pytest.mark.parametrize("function", [echo, Handler(), functools.partial(echo)])
def test_a_coroutine_function_of_a_reader_and_a_writer_is_not_wrapped(function):
    assert stream_handler(function) is function


@pytest.mark.parametrize(
    "function", [price, len, lambda *given: "x", functools.partial(price, currency="CHF")]
)
def test_a_function_of_a_request_is_wrapped(function):
    assert stream_handler(function) is not function


def test_a_function_with_more_than_two_arguments_is_rejected():
    with pytest.raises(TypeError, match="it needs 3 arguments"):
        stream_handler(lambda request, reader, writer: "x")
