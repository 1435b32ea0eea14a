"""Parses a test's ``backends`` argument of a Service.

Rule 1: an error is raised before any backend starts, and names the argument, the given value and
the expected value.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from userspace_proxy.embedding.arguments import EndpointAddress, read_endpoint
from userspace_proxy.model import SocketAddress

from .handler_threads import in_threads, is_coroutine_function
from .http_serving import HttpHandler, HttpServer

Ready = str | Callable[[SocketAddress], object]
"""A string to find in a line of the program's output, or a function of the backend's address that
raises an exception or returns False until the backend is ready."""


@dataclass(frozen=True)
class ReadyCommand:
    """A program that serves connections.

    It is ready once it accepts connections and ``ready``, if given, is met: a database accepts
    connections before it answers.
    """

    words: Sequence[str]
    """The program and its arguments; its address replaces ``{host}`` and ``{port}`` in them."""
    ready: Ready | None = None


StreamHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BackendLike = EndpointAddress | HttpHandler | StreamHandler | list[str] | ReadyCommand
"""Everything from which a backend can be made."""


def read_backends(
    backends: int | Iterable[BackendLike | None], protocol: str
) -> list[BackendLike | None]:
    """Return the kind of each backend; None for a server that answers with its name.

    Raises:
        TypeError: The argument isn't a number or list, or an item isn't a valid backend.
        ValueError: A string or tuple isn't an IP address with a port, or the number is negative.
    """
    if isinstance(backends, int) and not isinstance(backends, bool):
        if backends < 0:
            raise ValueError(f"backends: {backends} is less than 0")
        return [None] * backends
    if isinstance(backends, str | bool) or not isinstance(backends, Iterable):
        raise TypeError(f"backends: expected a number or a list, got {backends!r}")
    likes = list(backends)
    for like in likes:
        check_backend(like, protocol)
    return likes


def check_backend(like: BackendLike | None, protocol: str) -> None:
    """Raise TypeError or ValueError if no backend can be made from this value."""
    is_udp = protocol == "UDP"
    if isinstance(like, str):
        _check_text(like)
    elif isinstance(like, tuple):
        read_endpoint(like)
    elif (command := as_command(like)) is not None:
        words, ready = command.words, command.ready
        if isinstance(words, str) or not words or not all(isinstance(w, str) for w in words):
            raise TypeError(f"backend {like!r}: expected the words of a command")
        is_line = isinstance(ready, str) and ready and "\n" not in ready
        if not (ready is None or is_line or (callable(ready) and not is_coroutine_function(ready))):
            what = "expected a part of a line, or a function that is no coroutine function"
            raise TypeError(f"ready: {what}, got {ready!r}")
        if is_udp:
            what = f"backend {like!r}: a command can't be a UDP backend"
            raise TypeError(f"{what}: start it in the test, and give its address")
    elif callable(like):
        if is_udp:
            what = f"backend {_name(like)}: a function can't be a UDP backend"
            raise TypeError(f"{what}: backends=2 makes two that answer")
        stream_handler(like)
    elif like is not None:
        raise TypeError(f"backend {like!r}: expected a function, a command or an address")


def as_command(like: BackendLike | None) -> ReadyCommand | None:
    """Return the command of a backend that is a program, which may be a list; else None."""
    if isinstance(like, list):
        return ReadyCommand(like)
    return like if isinstance(like, ReadyCommand) else None


def stream_handler(function: Callable[..., Any]) -> StreamHandler:
    """Return a stream function unchanged; wrap a function of a request in an HTTP server.

    A plain function of a request runs in threads.

    Raises:
        TypeError: The function takes other arguments, or must be a coroutine function.
    """
    count = _required(function)
    if count == 2:
        if is_coroutine_function(function):
            return function
        raise TypeError(
            f"backend {_name(function)}: a function of a reader and a writer must be `async def`"
        )
    if count != 1:
        raise TypeError(
            f"backend {_name(function)}: expected a function of a request, or of a reader and a "
            f"writer; it needs {count} arguments"
        )
    return HttpServer(in_threads(function))


def _check_text(text: str) -> None:
    try:
        read_endpoint(text)
    except ValueError as exc:
        if ":" in text:
            raise
        words = text.split() or [text]
        raise ValueError(f"{exc}; a command is a list: {words!r}") from None


def _required(function: Callable[..., Any]) -> int:
    """Return the number of required positional arguments; 1 if none is required but one fits."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        # Some built-in functions have no signature: assume a function of a request.
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature.parameters.values()
    count = sum(p.kind in positional and p.default is p.empty for p in parameters)
    takes_one = any(p.kind in (*positional, p.VAR_POSITIONAL) for p in parameters)
    return 1 if count == 0 and takes_one else count


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", "") or repr(function)
