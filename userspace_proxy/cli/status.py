"""Runs the commands ``status`` (a line per Service port, problems first) and ``top`` (rates).

    admin address ──▶ text of the status page ──▶ terminal

The proxy writes the text; these commands request it, add colours, and return an exit status.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial

from ..errors import UserspaceProxyError
from .admin import AdminAnswer, find_admin
from .command import DONE, NEEDS_ATTENTION, Given
from .service_argument import ServiceArguments, first_found
from .terminal import EVERY_S, columns_of, wait, watch, write

TEXT, JSON = "text/plain", "application/json"
_OK = "ok"


def status(given: Given) -> int:
    """Print the state of a proxy, namespace or Service, or watch it; return the exit status.

    Raises:
        UserspaceProxyError: No proxy answers, or the Service doesn't exist.
    """
    admin = find_admin(given)
    names = ServiceArguments(given).selected()
    form = given.values.get("output", "text")
    query = {"q": given.values.get("search", "")}
    if form == "wide":
        query["wide"] = "yes"
    if form != "json":
        query["server"] = given.values.get("server", "")

    def ask(service: str) -> AdminAnswer:
        if form == "json":
            return admin.get("/api/v1/status", accept=JSON, service=service, **query)
        return admin.get("/", accept=TEXT, service=service, **query, **_width())

    is_watching = given.is_on("watch")
    service, answer = first_found(names, ask)
    if is_watching:
        watch(lambda: show_now(partial(ask, service)), sys.stdout)
    if form == "json":
        sys.stdout.write(answer.text)
        # For a namespace, use the level of the whole answer, which also covers the node's state.
        is_part = "/" in service or bool(query["q"])
        return _exit_status(_level_of(answer.body, service=service, is_part=is_part))
    write(sys.stdout, answer.text)
    return _exit_status(answer.level)


def top(given: Given) -> int:
    """Show rates every second until Ctrl-C, or once without a terminal; return the exit status.

    Raises:
        UserspaceProxyError: No proxy answers the first request; later, top waits for a proxy.
    """
    admin = find_admin(given)
    sort = given.values.get("sort", "rate")
    query = {"top": "yes", "sort": sort if sort == "name" else f"-{sort}"}
    query["q"] = given.values.get("search", "")

    def ask(service: str) -> AdminAnswer:
        return admin.get("/", accept=TEXT, service=service, **query, **_width())

    service, _ = first_found(ServiceArguments(given).selected(), ask)
    if sys.stdout.isatty():
        watch(lambda: show_now(partial(ask, service)), sys.stdout)
    else:
        # Wait, because the rates cover the time since the previous answer.
        wait(EVERY_S)
        write(sys.stdout, ask(service).text)
    return DONE


def show_now(ask: Callable[[], AdminAnswer]) -> str:
    """Return the text to show, or an error as text, such as while a proxy restarts.

    Errors aren't raised, because the proxy or a deleted Service may reappear.
    """
    try:
        return ask().text
    except UserspaceProxyError as exc:
        return f"{exc}\n"


def _width() -> dict[str, str]:
    """Return the query for lines that fit the terminal, whose size may have changed."""
    columns = columns_of(sys.stdout)
    return {"columns": str(columns)} if columns else {}


def _level_of(body: bytes, *, service: str, is_part: bool) -> str:
    """Return the answer's level; for a part, any level in it other than ok, or else ok."""
    state = json.loads(body)
    if not is_part:
        return str(state["level"])
    levels = {port["state"]["level"] for port in state["ports"]}
    levels |= {"trouble" for item in state["ignored"] if item["is_conflict"]}
    key = service.partition(":")[0]
    rejected = state["source"].get("rejected", ())
    levels |= {"trouble" for item in rejected if key in item["services"]}
    return next(iter(levels - {_OK}), _OK)


def _exit_status(level: str) -> int:
    return DONE if level == _OK else NEEDS_ATTENTION
