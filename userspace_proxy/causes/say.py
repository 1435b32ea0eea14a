"""Renders causes as text: the sentence, the remedy, the command that shows more.

    Cause ──say──▶ "10.244.0.9:8080 refused connections, when it was last tried"
          ├─remedy▶ "See where the program listens …"
          └─kubectl_words, on_node▶ "describe pod -n shop web-1"

Rule 1: a sentence can be understood alone, and has no full stop. A remedy is a sentence, or a
command that can be pasted: a command begins in lower case, and values in its template are quoted
for the shell.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from ..model import ServiceKey, ip_of
from ..model.annotations import DOMAIN
from ..model.quoting import shell_command, shell_word
from .cause import Cause, CauseCode, Text, When

EXPECTS_NO_HEADER = (
    "This proxy sends a PROXY header before the client's bytes (annotation "
    f"{DOMAIN}proxy-protocol), which the program may not expect: let it, or remove the annotation. "
)
"""The first remedy if an endpoint receives a PROXY header, and its clients get no answer."""
_LOG = "logs -n {namespace} {pod}"
_LAST = "See why no ready pod can be used instead of this terminating one (`kubectl get pods`). "


class Form(enum.Enum):
    """The form of a sentence."""

    WHOLE = enum.auto()
    SHORT = enum.auto()
    """The sentence without suspected reasons."""
    PREDICATE = enum.auto()
    """The sentence without the object, if it begins with the object."""
    SHORT_PREDICATE = enum.auto()
    """The sentence without suspected reasons and without the object."""


_SHORT = (Form.SHORT, Form.SHORT_PREDICATE)
_PREDICATE = (Form.PREDICATE, Form.SHORT_PREDICATE)


def say(cause: Cause, form: Form = Form.WHOLE) -> str:
    """Return the sentence of a cause."""
    row, is_now = cause.row, cause.when is When.NOW
    text: Text = row.words
    if not is_now and row.past:
        text = row.past
    elif row.short and (form in _SHORT or cause.is_of_way):
        # Most suspected reasons would also affect the nodes that the endpoint answers.
        text = row.short
    subject = f"{object_of(cause)} " if row.is_predicate and form not in _PREDICATE else ""
    within = f"{cause.within}: " if cause.within else ""
    parts = [within, subject, _written(text, cause)]
    if cause.when is When.PAST:
        # Without the comma, the clause after "but not 10.0.0.1" would seem to be about that client.
        comma = "," if cause.code is CauseCode.ENDPOINT_DENIES else ""
        parts.append(f"{comma} when it was last tried")
    if cause.is_terminating:
        parts.append("; it is terminating")
    if cause.before is not None and is_now:
        parts.append(f"; {say_before(cause.before)}")
    if _gets_header(cause):
        parts.append(" (this proxy sends a PROXY header first)")
    if cause.more and form not in _SHORT:
        parts.append(f"; {cause.more:,} more like this are not listed")
    return "".join(parts)


def say_before(cause: Cause) -> str:
    """Return how an endpoint failed before its current failure, as a clause."""
    return f"before, {say(cause.replace(when=When.LAST_MINUTE))}"


def remedy(cause: Cause, pod: str = "POD") -> str:
    """Return the remedy, with commands about ``pod``; empty if the sentence contains it."""
    before = cause.before
    if before is not None and before.code is CauseCode.ENDPOINT_UNREACHABLE:
        # Use the remedy for the earlier failure: a router without a route back to the source can't
        # report the endpoint as unreachable.
        nodes = {"answers_nodes": cause.answers_nodes, "answers_own": cause.answers_own}
        return remedy(before.replace(host=cause.host, **nodes), pod)
    row = cause.row
    to_nodes = (row.to_own_node if cause.answers_own else "") or row.to_some_nodes
    special = row.outside if cause.host else to_nodes if cause.answers_nodes else ""
    text = _written(special or row.hint, cause, is_quoted=True, pod=pod)
    if words := command(cause):
        text = f"kubectl {words}"
    if cause.answers_others:
        of_times = row.at_times_outside if cause.host else row.at_times
        if of_times:
            text = _written(of_times, cause, is_quoted=True, pod=pod)
        elif text and cause.code.traits.is_of_now:
            text = f"If it fails again: {text[0].lower()}{text[1:]}"
    text = f"{_LAST}{text}" if cause.is_terminating and not cause.host else text
    return f"{EXPECTS_NO_HEADER}{text}" if _gets_header(cause) else text


def command(cause: Cause) -> str:
    """Return the arguments of ``kubectl`` if the remedy is a command; otherwise an empty string."""
    return _written(cause.row.command, cause, is_quoted=True)


def object_of(cause: Cause) -> str:
    """Return the object of a cause: an address, ``shop/web``, ``EndpointSlice shop/web-x``."""
    about = cause.row.about
    params = dict(cause.params)
    return about.format_map(params) if isinstance(about, str) else about(**params)


def _gets_header(cause: Cause) -> bool:
    return cause.has_header and cause.code.traits.may_be_header


def _written(text: Text, cause: Cause, *, is_quoted: bool = False, pod: str = "POD") -> str:
    params: Mapping[str, object] = dict(cause.params)
    if not isinstance(text, str):
        return text(**params)
    if "{" not in text:
        return text
    params = {**params, "host": cause.host, "ip": ip_of(object_of(cause))}
    if is_quoted:
        params = {n: shell_word(v) if isinstance(v, str | tuple) else v for n, v in params.items()}
    return text.format_map({**params, "pod": pod})


def kubectl_words(cause: Cause, service: str, pod: str = "") -> str:
    """Return the quoted arguments of the ``kubectl`` command that shows more; empty without one.

    Args:
        service: The affected Service, ``namespace/name``.
        pod: The name of the pod that is the cause; empty if unknown. An endpoint's pod is unknown
            if its slice names none; then only the slice shows what has written the address.
    """
    # kubectl shows nothing about a host that is given by a DNS name.
    if _of_node(cause) or cause.host not in ("", ip_of(object_of(cause))):
        return ""
    row, traits, of_slices = cause.row, cause.code.traits, CauseCode.NO_SLICE.traits.kubectl
    words = row.kubectl or (of_slices if row.is_of_slices else "")
    words = words or (CauseCode.NOT_LOCAL.traits.kubectl if cause.is_terminating else "")
    words = words or (traits.kubectl_of_pod if pod else "") or traits.kubectl
    if not words and traits.is_of_endpoint and ip_of(object_of(cause)):
        of_pod = _LOG if traits.accepts else CauseCode.NOT_READY.traits.kubectl_of_pod
        words = of_pod if pod else of_slices
    namespace, name = ServiceKey.read(service)
    places = {"namespace": namespace, "name": name, "pod": pod}
    values = {**dict(cause.params), **places}
    return words.format_map({place: shell_word(value) for place, value in values.items()})


def on_node(cause: Cause) -> str:
    """Return the command that shows more on the node; empty if there is none."""
    match str(cause.get("chain") or "").split(" ", 3):
        case ["legacy", family, table, name]:
            tool = "ip6tables-legacy" if family == "ip6" else "iptables-legacy"
            of_table = () if table == "filter" else ("-t", table)
            return shell_command(tool, *of_table, "-S", name)
        case [family, table, *name]:
            return shell_command("nft", "list", "chain", family, table, " ".join(name))
    return _of_node(cause) or cause.code.traits.on_node


def _of_node(cause: Cause) -> str:
    of_way = cause.row.on_way if cause.answers_nodes and not cause.host else ""
    return _written(cause.row.on_node or of_way, cause, is_quoted=True)
