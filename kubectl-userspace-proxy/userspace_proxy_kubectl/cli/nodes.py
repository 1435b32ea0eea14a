"""Implements the command ``nodes``, and ``status`` and ``top`` for all nodes.

    answers of agents ──merge──▶ page ──▶ terminal, once or each second

Rule 1: a node that hasn't answered is named, and affects only its own line.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from userspace_proxy.cli.all_nodes import settings_of
from userspace_proxy.cli.command import DONE, NEEDS_ATTENTION, Given
from userspace_proxy.cli.service_argument import NoSuchService, ServiceArguments, first_found
from userspace_proxy.cli.terminal import EVERY_S, columns_of, wait, watch, write
from userspace_proxy.errors import ConfigError

from .followed import FollowedNodes, read_once

if TYPE_CHECKING:
    from userspace_proxy.config import Settings
    from userspace_proxy.status.search import Search
    from userspace_proxy.status.text import StatusText

    from ..nodes.agent_answer import AllNodes
    from ..nodes.merged import Merged

    Page = Callable[[AllNodes, AllNodes | None], StatusText]

_JSON = "json"
# The averaging window for rates, in seconds, as for a single proxy.
_AVERAGED_S = 3


def nodes(given: Given) -> int:
    """Print a table of the nodes; return the exit status.

    Raises:
        UserspaceProxyError: A flag is wrong, or no agent can be found or reached.
    """
    form = given.values.get("output", "text")
    return _show(given, settings_of(given), (), lambda _: partial(_table, form))


def status_of_all(given: Given) -> int:
    """Print the state of all nodes, a namespace or a Service; return the exit status.

    Raises:
        UserspaceProxyError: A flag is wrong, no agent can be found, or there is no such Service.
    """
    settings = settings_of(given)
    names = ServiceArguments(given, settings, reads_cluster=True).selected()
    form, search = given.values.get("output", "text"), _search(given)

    def page_of(all_nodes: AllNodes) -> Page:
        return partial(_status, existing(all_nodes, names), search, form)

    return _show(given, settings, names, page_of)


def top_of_all(given: Given) -> int:
    """Show all nodes' rates until Ctrl-C, or once without a terminal; return the exit status.

    Raises:
        UserspaceProxyError: A flag is wrong, no agent can be found, or there is no such Service.
    """
    settings = settings_of(given)
    names = ServiceArguments(given, settings, reads_cluster=True).selected()
    sort, search = given.values.get("sort", "rate"), _search(given)
    with FollowedNodes(given, settings, services_among(names)) as following:
        recent = _LastSeconds()
        page = partial(_top, existing(following.now, names), search, sort)
        recent.add(following.now)
        if sys.stdout.isatty():
            watch(lambda: _text(page(*recent.add(following.now))), sys.stdout)
        else:
            # Average over several seconds: agents with little traffic report rarely, so a single
            # second may contain no report, or two.
            wait(_AVERAGED_S * EVERY_S)
            write(sys.stdout, _text(page(*recent.add(following.now))))
    return DONE


def _show(
    given: Given,
    settings: Settings,
    names: Sequence[str],
    page_of: Callable[[AllNodes], Page],
) -> int:
    """Show a page, once or every second; return the exit status.

    Args:
        names: Names of Services or namespaces that the page may be about, the most likely first.
        page_of: Renders the page from the answers.
    """
    also = services_among(names)
    if given.is_on("watch"):
        with FollowedNodes(given, settings, also) as following:
            page, recent = page_of(following.now), _LastSeconds()
            watch(lambda: _text(page(*recent.add(following.now))), sys.stdout)
    shown: list[StatusText] = []

    def show(all_nodes: AllNodes) -> None:
        shown.append(page_of(all_nodes)(all_nodes, None))
        if given.values.get("output") == _JSON:
            sys.stdout.write(_text(shown[0]))
        else:
            write(sys.stdout, _text(shown[0]))
        sys.stdout.flush()

    read_once(given, settings, also, show)
    return DONE if shown[0].level == "ok" else NEEDS_ATTENTION


def _status(
    name: str, search: Search, form: str, now: AllNodes, before: AllNodes | None
) -> StatusText:
    from userspace_proxy.status.text import StatusText

    from ..nodes.as_json import status_to_json
    from ..nodes.text import render_status

    part = _part(now, before, name, search)
    if form == _JSON:
        return StatusText(status_to_json(part), part.level)
    # A single Service is listed with its endpoints.
    is_wide = form == "wide" or "/" in name
    return render_status(part, columns=columns_of(sys.stdout), is_wide=is_wide)


def _top(
    name: str, search: Search, sort: str, now: AllNodes, before: AllNodes | None
) -> StatusText:
    from ..nodes.text import render_top

    part = _part(now, before, name, search)
    earlier = part if before is None else _part(before, None, name, search)
    return render_top(part, earlier, sort=sort, columns=columns_of(sys.stdout))


def _table(form: str, now: AllNodes, before: AllNodes | None) -> StatusText:
    from userspace_proxy.status.text import StatusText

    from ..nodes.as_json import nodes_to_json
    from ..nodes.merged import merge
    from ..nodes.text import render_nodes

    merged = merge(now, before)
    shown = render_nodes(merged, columns=columns_of(sys.stdout))
    return StatusText(nodes_to_json(merged), shown.level) if form == _JSON else shown


def _part(now: AllNodes, before: AllNodes | None, name: str, search: Search) -> Merged:
    from ..nodes.merged import merge
    from ..nodes.subset import found_in, part_of

    return found_in(part_of(merge(now, before), name), search)


def existing(all_nodes: AllNodes, names: Sequence[str]) -> str:
    """Return the first name that exists.

    Raises:
        NoSuchService: None of the names exists.
    """
    from ..nodes.subset import missing_reason

    def check(name: str) -> None:
        if why := missing_reason(all_nodes, name):
            raise NoSuchService(why)

    return first_found(names, check)[0]


def services_among(names: Sequence[str]) -> Sequence[str]:
    """Return the Services among names of Services and namespaces."""
    return [name.partition(":")[0] for name in names if "/" in name]


def _search(given: Given) -> Search:
    from userspace_proxy.status.search import Search

    search = Search.parse(given.values.get("search", ""))
    if search.unknown:
        raise ConfigError(f"--search: {search.unknown}")
    return search


def _text(shown: StatusText) -> str:
    return shown.body.decode("utf-8", "replace")


class _LastSeconds:
    """The answers of the last seconds, from which rates are computed."""

    def __init__(self) -> None:
        self._past: deque[AllNodes] = deque(maxlen=_AVERAGED_S + 1)

    def add(self, now: AllNodes) -> tuple[AllNodes, AllNodes | None]:
        """Add answers; return them with the oldest kept answers, or None if none are older."""
        if not self._past or self._past[-1] is not now:
            self._past.append(now)
        return now, self._past[0] if self._past[0] is not now else None
