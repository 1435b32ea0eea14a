"""``userspace-proxy status``: one line per Service port, problems first.

    admin address ──▶ text of the status page ──▶ terminal

The proxy writes the text; this command asks for it, adds colours, and returns an exit status.
"""

from __future__ import annotations

import json
import sys

from .admin import AdminAddress, AdminAnswer, NotAnswered, find_admin
from .command import DONE, NEEDS_ATTENTION, Given
from .terminal import watch, write

TEXT, JSON = "text/plain", "application/json"
_OK = "ok"


def status(given: Given) -> int:
    """Print the state of a proxy, or of one Service; return the exit status.

    Raises:
        UserspaceProxyError: No proxy answers, or there is no such Service.
    """
    admin = find_admin(given)
    service = service_name(given.arguments[0]) if given.arguments else ""
    form = given.values.get("output", "text")
    if given.is_on("watch"):
        watch(lambda: show_now(admin, service, form), sys.stdout)
    answer = _ask(admin, service, form)
    if form == "json":
        sys.stdout.write(answer.body.decode())
        return _exit_status(_level_of(answer.body, service))
    write(sys.stdout, answer.body.decode())
    return _exit_status(answer.level)


def service_name(text: str) -> str:
    """Return ``namespace/name``; a name alone is one of the namespace ``default``."""
    return text if "/" in text else f"default/{text}"


def _ask(admin: AdminAddress, service: str, form: str) -> AdminAnswer:
    if form == "json":
        return admin.get("/api/v1/status", accept=JSON, service=service)
    wide = "yes" if form == "wide" else ""
    return admin.get("/", accept=TEXT, service=service, wide=wide)


def show_now(admin: AdminAddress, service: str, form: str) -> str:
    """Return what is shown at the moment: while a proxy restarts, that none answers."""
    try:
        return _ask(admin, service, form).body.decode()
    except NotAnswered as exc:
        return f"{exc}\n"


def _level_of(body: bytes, service: str) -> str:
    state = json.loads(body)
    if not service:
        return str(state["level"])
    levels = {port["state"]["level"] for port in state["ports"]}
    levels |= {"trouble" for item in state["ignored"] if item["is_conflict"]}
    return next(iter(levels - {_OK}), _OK)


def _exit_status(level: str) -> int:
    return DONE if level == _OK else NEEDS_ATTENTION
