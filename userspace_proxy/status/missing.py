"""Words that there is no such Service, and which one was probably meant."""

from __future__ import annotations

from ..causes.say import say
from ..facts import RejectedFacts, SourceFacts, StatusFacts
from ..model.quoting import printable
from ..model.similar import ALIKE, NEARLY_EQUAL, did_you_mean

# Names that a mistyped one is compared with: ten thousand hold up the process for half a second.
_COMPARED_MAX = 1000


def say_missing(view: StatusFacts, service: str) -> str:
    """Return that there is no such Service, and the nearest name; or that it has no such port.

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
        have = filter(None, dict.fromkeys([port.port or port.number for port in own]))
        return printable(f"{key} has no port {wanted}; it has {', '.join(have)}")
    names = {f"{port.namespace}/{port.service}" for port in view.ports}
    names |= {item.service for item in view.ignored}
    names |= {name for item in view.source.rejected for name in item.services}
    what = f"no Service {service}"
    if "/" in service:
        namespace, _, name = key.partition("/")
        names = {
            one for one in names if one.startswith(f"{namespace}/") or one.endswith(f"/{name}")
        }
    else:
        names |= {name.partition("/")[0] for name in names}
        what = f"no namespace {service} with a Service"
    unread = _say_unread(view.source, key.rpartition("/")[2])
    # What can't be read may contain a Service of the name itself.
    similarity = NEARLY_EQUAL if unread else ALIKE
    hint = did_you_mean(service, sorted(names)[:_COMPARED_MAX], similarity=similarity)
    hint = f" ({hint})" if hint else ""
    return printable(f"there is {what}{hint}{unread}")


def is_known(item: RejectedFacts) -> bool:
    """Return whether it is known which object has the mistake, or which Services it concerns."""
    return bool(item.object or item.services)


def _say_unread(source: SourceFacts, name: str) -> str:
    """Return that a Service may be in what can't be read, as the end of a sentence; or empty.

    Args:
        name: A file that contains it in its own name is the likeliest.
    """
    known = {item.line for item in source.rejected if is_known(item)}
    problems = [line for line in source.problems if line not in known]
    places = {item.line: item.place for item in source.rejected}
    problems.sort(key=lambda line: name not in places.get(line, ""))
    if not problems:
        return ""
    more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
    return f"; not everything can be read: {problems[0]}{more}"
