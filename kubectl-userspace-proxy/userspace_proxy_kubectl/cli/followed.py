"""Reads all nodes for a command, once or continuously.

    agents ──▶ first answers, with their number so far ──▶ page
           └─▶ changes, in a thread ──▶ page, each second

Rule 1: answers that have arrived are shown without waiting for other nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from userspace_proxy.cli.command import Given
from userspace_proxy.cli.kubeconfig import find
from userspace_proxy.cli.running import run
from userspace_proxy.clocks import Clocks
from userspace_proxy.errors import ConfigError

if TYPE_CHECKING:
    from userspace_proxy.causes.cause import Cause
    from userspace_proxy.config import Settings

    from ..nodes.agent_answer import AgentAnswer, AllNodes
    from ..nodes.reader import NodesReader

    ShowPart = Callable[[AllNodes], None]

# If the first read took less than this, a second read, which takes as long, may follow.
_SHORT_S = 2.5
_CLEAR_LINE = "\r\x1b[K"


def read_once(
    given: Given,
    settings: Settings,
    also: Sequence[str] = (),
    show: Callable[[AllNodes], object] = lambda _: None,
) -> AllNodes:
    """Return the first answers of all nodes.

    Args:
        also: Services to read completely, ``namespace/name``.
        show: Called with the answers before the streams are closed, which takes a second for
            nodes that don't answer.

    Raises:
        UserspaceProxyError: A flag is wrong, or no agent can be found or reached.
    """

    async def main() -> AllNodes:
        async with open_reader(given, settings) as reader:
            all_nodes, _ = await _look(reader, also)
            show(all_nodes)
            return all_nodes

    return run(main())


async def _look(reader: NodesReader, also: Sequence[str]) -> tuple[AllNodes, Sequence[str]]:
    """Return the first answers, and the Services that were read completely.

    Summaries omit Service ports that are served, so they don't show which nodes a failing endpoint
    still answers. If the first read was short, a second read requests these ports.
    """
    from ..nodes.merged import services_to_ask

    began = Clocks.monotonic()
    with _progress() as show:
        all_nodes = await reader.first(show, also=also)
        more = [*{*also, *services_to_ask(all_nodes)}]
        if len(more) > len(also) and Clocks.monotonic() - began < _SHORT_S:
            all_nodes = await reader.first(show, also=more)
        return all_nodes, more


class FollowedNodes:
    """The answers of all nodes while a command shows them; a context manager.

    A thread reads the answers, because output blocks on the terminal.
    """

    def __init__(self, given: Given, settings: Settings, also: Sequence[str] = ()) -> None:
        self._reader = open_reader(given, settings)
        self._also = also
        self._has_answers = threading.Event()
        self._now: AllNodes | None = None
        self._is_stopping = False
        self._stop: Callable[[], object] | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="nodes")
        self._reading: Future[None] | None = None

    def __enter__(self) -> FollowedNodes:
        """Start reading, and wait for the first answers.

        Raises:
            UserspaceProxyError: No agent can be found or reached.
        """
        self._reading = self._executor.submit(asyncio.run, self._follow())
        self._reading.add_done_callback(lambda _: self._has_answers.set())
        try:
            self._has_answers.wait()
            _ = self.now
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._is_stopping = True
        if self._stop is not None:
            # The event loop may already be closed, and then there is nothing to stop.
            with contextlib.suppress(RuntimeError):
                self._stop()
        self._executor.shutdown()

    @property
    def now(self) -> AllNodes:
        """The latest answers.

        Raises:
            UserspaceProxyError: The reader has given up.
        """
        if self._reading is not None and self._reading.done():
            self._reading.result()
        assert self._now is not None
        return self._now

    async def _follow(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._stop = partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)
        if self._is_stopping:
            return
        async with self._reader as reader:
            self._now, also = await _look(reader, self._also)
            self._has_answers.set()
            has_begun = False
            problems = {one.node: one.problem for one in self._now.answers}
            async for now in reader.follow(also=also):
                all_nodes = _with_problems(now, problems)
                # Until each node has answered or failed again, keep the first answers, which are
                # more complete.
                has_begun = has_begun or not any(map(_is_asked, all_nodes.answers))
                if has_begun:
                    self._now = all_nodes


def _with_problems(all_nodes: AllNodes, problems: dict[str, Cause | None]) -> AllNodes:
    """Return all nodes; a node that hasn't answered or failed again yet keeps its earlier problem.

    Args:
        problems: Problems by node; problems of nodes that have answered or failed are removed.
    """
    if not problems:
        return all_nodes
    answers = []
    for one in all_nodes.answers:
        if _is_asked(one):
            answers.append(replace(one, problem=problems.get(one.node)))
        else:
            problems.pop(one.node, None)
            answers.append(one)
    return replace(all_nodes, answers=tuple(answers))


def _is_asked(answer: AgentAnswer) -> bool:
    return bool(answer.agents) and answer.status is None and answer.problem is None


@contextlib.contextmanager
def _progress() -> Iterator[ShowPart | None]:
    """Yield a function that shows how many nodes have answered; None without a terminal."""
    # Write unescaped, because the terminal must interpret this text; it contains nothing from
    # agents.
    stream = getattr(sys.stderr, "unescaped", sys.stderr)
    if stream is None or not stream.isatty():
        yield None
        return

    def show(all_nodes: AllNodes) -> None:
        answered = sum(one.status is not None for one in all_nodes.answers)
        stream.write(f"{_CLEAR_LINE}{answered:,} of {len(all_nodes.answers):,} nodes")
        stream.flush()

    try:
        yield show
    finally:
        stream.write(_CLEAR_LINE)
        stream.flush()


# This variable is set in pods, where, as in kubectl, the pod's service account is used.
_IN_POD = "KUBERNETES_SERVICE_HOST"


def open_reader(given: Given, settings: Settings) -> NodesReader:
    """Raise the descriptor limit; return a reader of the selected nodes, which the caller opens.

    Raises:
        ConfigError: A flag's value isn't valid, or there is no kubeconfig.
    """
    from userspace_proxy.linux import raise_descriptor_limit
    from userspace_proxy.sources.kubernetes.client import ApiClient
    from userspace_proxy.sources.kubernetes.credentials import Credentials

    from ..nodes.discovery import NAMESPACE, Where
    from ..nodes.reader import NodesReader

    timeout_s = _timeout_s(given)
    where = Where(
        namespace=given.values.get("release-namespace") or NAMESPACE,
        selector=given.values.get("selector", ""),
        nodes=frozenset(filter(None, given.values.get("node", "").split(","))),
        name=settings.service_proxy_name,
    )
    kubeconfig = find(given, settings)
    if kubeconfig is None and not settings.master and not os.environ.get(_IN_POD):
        raise ConfigError(
            "cannot ask all nodes: there is no kubeconfig",
            hint="give --kubeconfig=FILE, or for one proxy --server=ADDRESS",
        )
    credentials = Credentials(kubeconfig=kubeconfig or "", master=settings.master)
    # Each followed node has its own connection, which takes a descriptor.
    raise_descriptor_limit()
    return NodesReader(ApiClient(credentials), where, timeout_s=timeout_s)


def _timeout_s(given: Given) -> float | None:
    from userspace_proxy.config.flags import parsed
    from userspace_proxy.model.durations import parse_duration

    text = given.values.get("timeout")
    seconds = parsed("timeout", text, parse_duration) if text else None
    if seconds == 0:
        raise ConfigError("--timeout: without any time nothing is answered", hint="write 4s")
    return seconds
