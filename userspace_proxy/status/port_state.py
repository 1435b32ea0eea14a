"""Judges how the clients of one Service port are served, and why not.

    what listens ──▶ usable endpoints ──▶ which of them answer ──▶ what has no effect ──▶ StateFacts

Rule 1: trouble means that this proxy, or something below it, doesn't work as it should.
Rule 2: attention means that the cluster asks for something without effect: a Service without a
ready endpoint is refused on purpose, and many clusters always have one.
Rule 3: it is OK that ``externalTrafficPolicy: Local`` drops clients from outside on nodes without
an endpoint: that is its purpose, and load balancers probe the node first.
Rule 4: the mark of success (``PortFacts.mark``) and "served" are for clients that get an answer.
Where the kernel leads them straight to endpoints, or no byte has come back, nothing shows that: the
state is "unknown". A minute after the last answer, what is said of clients is in the past.
Rule 5: an endpoint that answers now and again isn't a success either: clients of the last minute
that no endpoint answered count, if they are many.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence

from ..facts import EndpointFacts, Level, PortFacts, PortState, StateFacts
from ..facts.units import capitalised, plural
from ..model import Cause, CauseCode
from ..policy.cause_rows import row_of
from ..policy.causes import CHAIN, out_of_client_ports, out_of_ports
from ..policy.client_causes import source_denied
from ..policy.endpoint_causes import BEFORE, about_to_vanish
from ..policy.usable import TERMINATING
from .client_mistakes import judge_mistakes
from .late_answers import many_idle, many_owed, many_saved_late, many_unanswered, remedy_for_open
from .lately import many_failed, many_gaps, remedy_for_gaps
from .no_byte import closed_in_words, no_byte_in_words, quiet_in_words, remedy_for_no_byte
from .not_served import judge_not_served
from .path_words import led_in_words, remedy_for_unseen
from .waits import (
    MORE_ROOM,
    Judgement,
    held_at_limit,
    is_silent,
    judge_at_limit,
    judge_held,
    judge_holding,
)


def judge(port: PortFacts) -> StateFacts:
    """Return how one Service port is served, and why not."""
    level, word, sentence, first = _judge(port)
    failed = [endpoint for endpoint in port.endpoints if endpoint.cause is not None]
    endpoints = (endpoint.cause for endpoint in _present_first(failed))
    others = (port.cause, *endpoints, *_denied(port), *port.client_mistakes, *port.notes)
    known: dict[str, Cause] = {}
    # A note may be the cause as well.
    for cause in (*first, *(cause for cause in others if cause is not None)):
        known.setdefault(cause.sentence, cause)
    causes = tuple(known.values())
    if not causes:
        return StateFacts(level, word, sentence, way_out=_remedy(port, word))
    return StateFacts(level, word, sentence, causes, causes[0].hint, causes[0].code)


def _remedy(port: PortFacts, word: PortState) -> str:
    """Return how to find out what isn't known, or the reason; empty if there is nothing to do."""
    if word is PortState.AT_LIMIT and not is_silent(port):
        return MORE_ROOM
    if word is PortState.PARTLY_ANSWERING:
        return remedy_for_open(port) or remedy_for_gaps(port)
    if word not in (PortState.UNKNOWN, PortState.AT_LIMIT):
        return ""
    if not port.is_unseen:
        return remedy_for_no_byte(port)
    service = f"{port.namespace}/{port.service}"
    return "" if port.is_probed else remedy_for_unseen(service, port.protocol)


def mistakes_of(port: PortFacts) -> Iterable[str]:
    """Return what users have written and don't get."""
    return [note.sentence for note in port.notes if note.code is CauseCode.NOT_FOLLOWED]


def also_in_words(sentence: str, notes: Iterable[str]) -> str:
    """Return the notes that follow a sentence; empty for none.

    Args:
        sentence: Of several notes only one is shown, here or in it; the others are counted.
    """
    mistakes = dict.fromkeys(notes)
    others = [mistake for mistake in mistakes if mistake not in sentence]
    shown = f"; also: {others.pop(0)}" if others and len(others) == len(mistakes) else ""
    return f"{shown}; {plural(len(others), 'further note')}" if others else shown


def serving_in_words(port: PortFacts) -> str:
    """Return how many endpoints serve, and how many are on standby."""
    return f"{plural(port.serving, 'endpoint')}{standby_in_words(port)}"


def standby_in_words(port: PortFacts) -> str:
    """Return how many endpoints are on standby, as the end of a sentence; empty if none is."""
    standby = sum(endpoint.is_standby for endpoint in port.endpoints)
    return f", {standby:,} on standby" if standby else ""


def served_in_words(port: PortFacts) -> str:
    """Return how the clients of endpoints that don't fail are served, as far as that is known."""
    by = serving_in_words(port)
    if port.is_unseen:
        return capitalised(led_in_words(by, "probes" if port.is_probed else ""))
    if port.is_without_answer:
        return no_byte_in_words(port, by)
    return quiet_in_words(port, by) if port.is_quiet else f"Served by {by}"


_REASONS_SHOWN = 3
# Of an endpoint that closes: a close resets what the program has not read, as it happens to arrive.
_RESETS_PER_CLOSE = 2
# Of a client that waits for its turn: a limit that is met for less works as intended.
_LONG_S = 1


def _judge(port: PortFacts) -> Judgement:
    """Return level, word, sentence, and the causes that decide them."""
    if port.problem:
        return judge_not_served(port)
    if port.is_dropping and port.admits != ():
        sentence = f"Clients from outside are dropped here: {port.cause}"
        return Level.OK, PortState.DROPPED, sentence, ()
    if port.is_dropping:
        return Level.ATTENTION, PortState.DROPPED, f"Clients are dropped: {port.cause}", ()
    if port.is_holding:
        return judge_holding(port)
    usable = [endpoint for endpoint in port.endpoints if endpoint.is_usable]
    if port.cause or not usable:
        what = f"Clients are refused: {port.cause or 'no endpoint is usable'}"
        return (
            Level.ATTENTION,
            PortState.REFUSED,
            "; ".join(filter(None, (what, many_gaps(port)))),
            (),
        )
    if any(e.cause and _is_on_purpose(e.cause) for e in usable):
        return Level.ATTENTION, PortState.FAULT_ON_PURPOSE, _faults(usable), ()
    failing = [e for e in usable if e.ejected_for_s is not None or e.cause is not None]
    if len(failing) == len(usable):
        return _not_answering(port, failing)
    if port.is_out_of_ports:
        cause = out_of_ports()
        return Level.TROUBLE, PortState.OUT_OF_PORTS, f"Clients may be reset: {cause}", (cause,)
    if port.client_mistakes:
        return judge_mistakes(port)
    if not all(map(_has_denied, failing)):
        others = [endpoint for endpoint in usable if endpoint not in failing]
        what = "; ".join(_some_fail(port, failing, others))
        return Level.ATTENTION, PortState.PARTLY_ANSWERING, what, ()
    if port.max_connections is not None and port.waits.longest_s >= _LONG_S:
        return judge_at_limit(port)
    return _served(port, len(usable))


def _is_on_purpose(cause: Cause) -> bool:
    return cause.code is CauseCode.FAULT_ON_PURPOSE


def _faults(usable: Sequence[EndpointFacts]) -> str:
    causes = [endpoint.cause for endpoint in usable if endpoint.cause]
    on_purpose = [cause for cause in causes if _is_on_purpose(cause)]
    real = [cause for cause in causes if not _is_on_purpose(cause)]
    parts = [str(on_purpose[0])]
    if len(on_purpose) > 1:
        parts.append(f"{plural(len(on_purpose) - 1, 'more endpoint')} with faults on purpose")
    return "; ".join([*parts, *map(str, real[:1])])


def _not_answering(port: PortFacts, failing: Sequence[EndpointFacts]) -> Judgement:
    """Judge a Service port whose endpoints have all failed when a client last tried them."""
    sentence = f"{_all_fail(failing)}{_unused(port)}"
    is_late = all(_is(CauseCode.ENDPOINT_ANSWERS_LATE, endpoint) for endpoint in failing)
    if port.waits.waiting and port.max_connections is not None and is_late:
        # Clients that wait for their turn are what makes answers late.
        return judge_at_limit(port)
    if port.waits.waiting:
        return judge_held(port, sentence, [one.cause.code for one in failing if one.cause])
    denials = [
        e.cause for e in failing if not e.is_past and e.cause and _is(CauseCode.ENDPOINT_DENIES, e)
    ]
    if denials:
        # Its other clients are answered.
        clients = "Some clients" if port.connections else "Clients"
        sentence = f"{clients} get no answer: {'; '.join(_why(failing, denials[0]))}"
        return Level.ATTENTION, PortState.PARTLY_ANSWERING, sentence, (denials[0],)
    are_silent = all(map(_is_unanswered, failing))
    in_a_row = sum(e.cause.count for e in failing if e.cause)
    if lost := are_silent and _answers_others(port, in_a_row):
        return _failed_lately(port, lost)
    if port.is_without_answer and (what := _nothing_ever(port, failing, sentence)):
        is_quiet = port.protocol == "UDP" or all(endpoint.is_past for endpoint in failing)
        return (
            Level.ATTENTION,
            PortState.UNANSWERED if is_quiet else PortState.NOT_ANSWERING,
            what,
            (),
        )
    if all(endpoint.is_past for endpoint in failing):
        # Nothing has tried since: they may have recovered, and the next client will show.
        if are_silent:
            counted = _counted(failing, "flow" if port.protocol == "UDP" else "connection")
            what = f"{capitalised(counted)} got no answer: {sentence}"
            return Level.ATTENTION, PortState.UNANSWERED, what, ()
        return Level.ATTENTION, PortState.FAILED_BEFORE, f"Clients failed before: {sentence}", ()
    if all(_is(CauseCode.ENDPOINT_CUTS_OFF, endpoint) for endpoint in failing):
        ended = sum(endpoint.cause.count for endpoint in failing if endpoint.cause)
        were = "was" if ended == 1 else "were"
        counted = _counted(failing, "connection")
        what = f"{counted} {were} reset by the endpoint while or after it answered"
        return Level.ATTENTION, PortState.PARTLY_ANSWERING, capitalised(what), ()
    if are_silent:
        # Normal for some protocols: an observation, no failure.
        what = f"{_counted(failing, 'connection')} got no byte in time; {sentence}"
        if port.protocol == "UDP":
            what = f"no datagram has come back in {_counted(failing, 'flow')}{_before(failing)}"
        return Level.ATTENTION, PortState.UNANSWERED, f"Clients get no answer: {what}", ()
    if all(map(_only_closes, failing)):
        # A collector of logs ends idle connections so, and resets none (docs/troubleshooting.md).
        return Level.ATTENTION, PortState.NOT_ANSWERING, f"Clients get no answer: {sentence}", ()
    codes = [endpoint.cause.code for endpoint in failing if endpoint.cause]
    what = "; ".join(filter(None, (f"Clients fail: {sentence}", many_failed(port, but=codes))))
    return Level.TROUBLE, PortState.NOT_ANSWERING, what, ()


def _nothing_ever(port: PortFacts, failing: Sequence[EndpointFacts], sentence: str) -> str:
    """Return what was seen where nothing has ever come back; empty: clients failed.

    A protocol without answers (statsd, syslog, graphite) looks the same, now and later.
    """
    if port.protocol == "UDP" and all(map(_is_unanswered, failing)):
        return f"No datagram has come back in {_counted(failing, 'flow')}{_before(failing)}"
    return closed_in_words(failing, sentence) if all(map(_only_closes, failing)) else ""


def _is(code: CauseCode, endpoint: EndpointFacts) -> bool:
    """Return whether an endpoint fails for this cause."""
    return endpoint.cause is not None and endpoint.cause.code is code


def _is_unanswered(endpoint: EndpointFacts) -> bool:
    return endpoint.cause is not None and row_of(endpoint.cause.code).is_unanswered


def _has_denied(endpoint: EndpointFacts) -> bool:
    """Return whether it denied a client a while ago, which other endpoints have served then.

    With ClientIP affinity they still do, and no client may dial it for hours.
    """
    return endpoint.is_past and _is(CauseCode.ENDPOINT_DENIES, endpoint)


def _counted(failing: Sequence[EndpointFacts], noun: str) -> str:
    """Return how many of the connections (flows) to endpoints ended without a byte."""
    ended = sum(endpoint.cause.count for endpoint in failing if endpoint.cause)
    total = sum(endpoint.connections for endpoint in failing)
    if ended < total:
        return f"the last {noun if ended == 1 else plural(ended, noun)}"
    return f"{ended:,} of {plural(total, noun)}"


def _before(failing: Sequence[EndpointFacts]) -> str:
    """Return how an endpoint failed before it became silent, as the end of a sentence; or empty."""
    parts = (
        endpoint.cause.sentence.partition(BEFORE)[1:] for endpoint in failing if endpoint.cause
    )
    return next(("".join(part) for part in parts if part[0]), "")


def _only_closes(endpoint: EndpointFacts) -> bool:
    """Return whether it ends connections, and resets at most a few: those with unread bytes."""
    is_end = _is(CauseCode.ENDPOINT_RESETS, endpoint)
    resets = endpoint.resets + endpoint.failures_by_cause.get(CauseCode.ENDPOINT_RESETS, 0)
    return (
        is_end and endpoint.ejected_for_s is None and resets <= _RESETS_PER_CLOSE * endpoint.empty
    )


def _served(port: PortFacts, usable: int) -> Judgement:
    if port.is_out_of_client_ports:
        cause = out_of_client_ports()
        return Level.ATTENTION, PortState.OUT_OF_CLIENT_PORTS, capitalised(cause.sentence), (cause,)
    unserved = [n for n in port.notes if row_of(n.code).is_of_address]
    word = PortState.UNKNOWN if port.is_unseen or port.is_without_answer else PortState.SERVED
    sentence = served_in_words(port)
    if lost := many_unanswered(port):
        return _failed_lately(port, lost)
    now = f"{sentence} now; " if word is PortState.SERVED and not port.is_quiet else ""
    if many := many_failed(port):
        return _failed_lately(port, f"{now}{many}")
    if gaps := many_gaps(port):
        return _failed_lately(port, f"{sentence}; {gaps}")
    if late := many_saved_late(port) or many_idle(port):
        return _failed_lately(port, f"{now}{late}")
    if owed := many_owed(port):
        if port.lately.owes_seldom:
            return _failed_lately(port, f"{now}{owed}")
        # Perhaps its clients have the last word: nothing shows that they are served.
        return Level.OK, PortState.UNKNOWN, owed, _of_lately(port)
    if denied := _is_none_admitted(port):
        what = f"No client has been admitted: {denied[0]}"
        return Level.ATTENTION, PortState.NONE_ADMITTED, what, tuple(denied)
    if unserved:
        return (
            Level.ATTENTION,
            PortState.PARTLY_SERVED,
            f"Partly served: {unserved[0]}",
            tuple(unserved),
        )
    if mistakes := [note for note in port.notes if note.code is not CauseCode.NOT_OURS]:
        return Level.ATTENTION, word, f"{sentence}; {mistakes[0]}", (mistakes[0],)
    if all(e.state == TERMINATING for e in port.endpoints if e.is_usable):
        ending = about_to_vanish(port.namespace, usable)
        sentence = sentence.replace("Ready: ", "Usable: ", 1)
        return Level.ATTENTION, word, f"{sentence}; {ending}", (ending,)
    # At an address for the internet, scanners are dropped all day.
    denied_before = (e.cause for e in port.endpoints if _has_denied(e))
    as_intended = map(str, (*_denied(port), *denied_before, *port.notes))
    return Level.OK, word, "; ".join((sentence, *as_intended)), ()


def _answers_others(port: PortFacts, in_a_row: int) -> str:
    """Return how many clients of the last minute got no answer.

    Empty if they are few, or if none was answered.
    """
    if port.protocol == "UDP":
        return many_unanswered(port, in_a_row)
    return many_failed(port) if port.lately.left > in_a_row else ""


def _failed_lately(port: PortFacts, sentence: str) -> Judgement:
    return Level.ATTENTION, PortState.PARTLY_ANSWERING, sentence, _of_lately(port)


def _of_lately(port: PortFacts) -> tuple[Cause, ...]:
    return (port.lately.cause,) if port.lately.cause is not None else ()


def _is_none_admitted(port: PortFacts) -> Sequence[Cause]:
    """Return why packets are dropped if those of all clients were; empty if one was served."""
    is_counted = not port.is_unseen or port.kernel_connections is not None
    if port.admits is None or not is_counted or port.connections or port.kernel_connections:
        return ()
    now = source_denied(port.admits).sentence
    return [cause for cause in _denied(port) if cause.sentence == now]


def _denied(port: PortFacts) -> Sequence[Cause]:
    """Return the causes of drops other than that of a policy now, which is the plan's."""
    policy = port.cause.code if port.cause is not None else None
    return [cause for cause in port.turned_away if cause.code is not policy]


def _all_fail(failing: Sequence[EndpointFacts]) -> str:
    if len(failing) == 1:
        return str(failing[0].cause or "its only usable endpoint doesn't answer")
    past = sum(endpoint.is_past for endpoint in failing)
    if 0 < past < len(failing):
        text = _do_not_answer(failing, f"its {len(failing):,} endpoints")
    else:
        when = "answered when last tried" if past else "answers"
        text = f"none of its {len(failing):,} endpoints {when}"
    return "; ".join((text, *_why(failing)))


def _why(failing: Sequence[EndpointFacts], most: Cause | None = None) -> Iterable[str]:
    """Yield the cause that most clients meet, and in short the next one of another kind.

    Those of a while ago only count where there are no others.

    Args:
        most: The first one; None: by how often each was seen.
    """
    kinds = {most.code: most} if most is not None else {}
    for endpoint in _present_first([one for one in failing if not one.is_past] or failing):
        if endpoint.cause is not None:
            kinds.setdefault(endpoint.cause.code, endpoint.cause)
    first, *others = kinds.values() or (None,)
    if first is not None:
        yield str(first)
    if others:
        short = others[0].sentence.partition(": ")[0]
        # A rule of this node is a fact; what else it might be is none.
        yield others[0].sentence if CHAIN in others[0].sentence else short
    if more := others[1:]:
        yield plural(len(more), "further cause")


def _unused(port: PortFacts) -> str:
    """Return why the endpoints that can't serve aren't used, as the end of a sentence; or empty."""
    reasons = collections.Counter(e.state for e in port.endpoints if not e.is_usable)
    if not (left := reasons.total()):
        return ""
    others = "the other one isn't" if left == 1 else f"the other {left:,} aren't"
    if len(reasons) == 1:
        return f"; {others} used: {next(iter(reasons))}"
    shown = [f"{count:,} {why}" for why, count in reasons.most_common(_REASONS_SHOWN)]
    more = ["…"] if len(reasons) > len(shown) else []
    return f"; {others} used: {', '.join([*shown, *more])}"


def _some_fail(
    port: PortFacts, failing: Sequence[EndpointFacts], others: Sequence[EndpointFacts]
) -> Iterable[str]:
    """Yield which endpoints fail, and whether the others serve."""
    what = "the other one" if len(others) == 1 else f"the other {len(others):,}"
    does, lost = "serves" if len(others) == 1 else "serve", ""
    if not any(endpoint.answered_at for endpoint in others):
        does = f"{'has' if len(others) == 1 else 'have'} not been tried"
    elif port.is_quiet:
        does = "answered before"
    elif lost := _others_fail(port, failing):
        does = f"{does}, but not always"
    if len(failing) > 1:
        total = plural(len(failing) + len(others), "endpoint")
        yield from (_do_not_answer(failing, total), f"{what} {does}", *_why(failing))
    else:
        cause = failing[0].cause
        yield capitalised(str(cause)) if cause else "1 endpoint doesn't answer"
        yield f"{what} {does}"
    if lost:
        yield lost


def _others_fail(port: PortFacts, failing: Sequence[EndpointFacts]) -> str:
    """Return how many clients failed, or wait, because of others; empty if they are few."""
    if port.max_connections is not None and port.waits.longest_s >= _LONG_S:
        return held_at_limit(port)
    cause = port.lately.cause
    is_other = cause is not None and all(cause.object != one.address for one in failing)
    return (many_unanswered(port) or many_failed(port)) if is_other else ""


def _do_not_answer(failing: Sequence[EndpointFacts], total: str) -> str:
    """Return how many of all endpoints don't answer, and how many didn't a while ago."""
    past = sum(endpoint.is_past for endpoint in failing)
    now = len(failing) - past
    if not now:
        return f"{past:,} of {total} didn't answer when last tried"
    answer = "doesn't answer" if now == 1 else "don't answer"
    before = f", and {past:,} didn't when last tried" if past else ""
    return f"{now:,} of {total} {answer}{before}"


def _present_first(endpoints: Sequence[EndpointFacts]) -> Sequence[EndpointFacts]:
    """Return them with those first whose causes are in the present tense, then by what was seen.

    Endpoints that fail fast are ejected, so clients meet most often what costs them most.
    """
    return sorted(endpoints, key=lambda one: (one.is_past, -(one.cause.count if one.cause else 0)))
