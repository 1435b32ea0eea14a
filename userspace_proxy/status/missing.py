"""Formats the error for a Service that doesn't exist, and suggests similar names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..causes.notes import range_without_node_port
from ..causes.say import say
from ..errors import ConfigError
from ..facts import PortFacts, RejectedFacts, SourceFacts, StatusFacts
from ..model import ServiceKey
from ..model.annotations import DOMAIN
from ..model.port_ranges import PORT_MAX, read_port_ranges
from ..model.quoting import printable
from ..model.similar import NEARLY_EQUAL, alike, did_you_mean, nearest

_NAMED_MAX = 3
_PORT_RANGES = f"{DOMAIN}port-ranges"


def say_missing(view: StatusFacts, service: str) -> str:
    """Return why a Service, port or namespace isn't shown, with the name that was probably meant.

    Args:
        service: ``namespace``, ``namespace/name`` or ``namespace/name:port``.
    """
    key, _, wanted = service.partition(":")
    for item in view.ignored:
        if key == item.service and (not wanted or item.port in ("", wanted)):
            return printable(f"{key} is not served: {say(item.cause)}")
    own = [port for port in view.ports if f"{port.namespace}/{port.service}" == key]
    if not own and (rejected := view.source.rejected_of(key)):
        return printable(f"{key} is not served: {rejected[0].line}")
    if wanted and own:
        # For a port with several families or sides, use the first entry, which has the ClusterIP.
        ports = {port.port or port.number: port for port in reversed(own)}
        have = filter(None, map(_numbered, reversed(ports.values())))
        refused = _say_refused_range(own, wanted)
        return printable(f"{key} has no port {wanted}; it has {', '.join(have)}{refused}")
    names = {f"{port.namespace}/{port.service}" for port in view.ports}
    names |= {item.service for item in view.ignored}
    names |= {name for item in view.source.rejected for name in item.services}
    unread = _say_unread(view.source, key.rpartition("/")[2])
    if "/" in service:
        said = say_meant(key, names, may_be_unread=bool(unread))
        return printable(f"there is no Service {service}{said}{unread}")
    namespaces = {ServiceKey.read(name).namespace for name in names}
    hint = did_you_mean(service, sorted(namespaces))
    hint = f" ({hint})" if hint else ""
    return printable(f"there is no namespace {service} with a Service{hint}{unread}")


def say_meant(key: str, names: Iterable[str], *, may_be_unread: bool = False) -> str:
    """Return a suggestion for a Service that doesn't exist, as the end of a sentence.

    Suggests Services with the same name in other namespaces, then similar Services in its
    namespace, otherwise a namespace with the same or a similar name.

    Args:
        key: ``namespace/name``.
        names: The names of all Services.
        may_be_unread: Whether the Service may exist after all; then only nearly equal names are
            suggested.
    """
    namespace, name = ServiceKey.read(key)
    by_namespace: dict[str, list[str]] = {}
    for one in sorted(names):
        place, of = ServiceKey.read(one)
        by_namespace.setdefault(place, []).append(of)
    elsewhere = [f"{place}/{name}" for place, known in by_namespace.items() if name in known]
    own = by_namespace.get(namespace, ())
    meant = [f"{namespace}/{one}" for one in alike(name, own, most=_NAMED_MAX)]
    if may_be_unread:
        meant = [one for one in meant if nearest(key, [one], similarity=NEARLY_EQUAL)]
    said = ""
    if elsewhere:
        verb = "exists" if len(elsewhere) == 1 else "exist"
        said = f"; {_listed(elsewhere, 'and')} {verb}"
    elif not meant and name in by_namespace:
        said = f"; {name} is a namespace"
    elif not meant and (near := nearest(name, by_namespace)):
        meant = [f"the namespace {near}"]
    return f"{said} (did you mean {_listed(meant, 'or')}?)" if meant else said


def _say_refused_range(ports: Iterable[PortFacts], wanted: str) -> str:
    """Return the end of a sentence: why a range that may contain a port isn't served; or empty."""
    if not wanted.isdecimal() or len(wanted) > len(str(PORT_MAX)):
        return ""
    for note in (note for port in ports for note in port.notes):
        if note.row is range_without_node_port:
            continue
        asked = str(note.get("asked"))
        try:
            ranges = read_port_ranges(asked) if asked else ()
        except ConfigError:
            ranges = ()
        is_wrong = note.get("key") == _PORT_RANGES
        if is_wrong or any(one.first <= int(wanted) <= one.last for one in ranges):
            return f": {say(note)}"
    return ""


def _numbered(port: PortFacts) -> str:
    """Return a port as ``80 (http)``; without an address, only its name, which may be empty."""
    named = f" ({port.port})" if port.port else ""
    return f"{port.number}{named}" if port.number else port.port


def _listed(words: Sequence[str], last: str) -> str:
    """Join words with commas, then ``last``: ``a, b, c and 2 more`` if there are many."""
    shown = list(words[:_NAMED_MAX])
    if more := len(words) - len(shown):
        shown.append(f"{more:,} more")
    *before, end = shown
    return f"{', '.join(before)} {last} {end}" if before else end


def is_known(item: RejectedFacts) -> bool:
    """Return whether a rejection names its object, or the Services that it concerns."""
    return bool(item.object or item.services)


def _say_unread(source: SourceFacts, name: str) -> str:
    """Return the end of a sentence: that an unreadable file may contain the Service; or empty.

    Args:
        name: The Service's name; a problem with a file whose name contains it comes first.
    """
    known = {item.line for item in source.rejected if is_known(item)}
    problems = [line for line in source.problems if line not in known]
    places = {item.line: item.place for item in source.rejected}
    problems.sort(key=lambda line: name not in places.get(line, ""))
    if not problems:
        return ""
    more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
    return f"; not everything can be read: {problems[0]}{more}"
