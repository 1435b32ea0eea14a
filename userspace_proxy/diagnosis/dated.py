"""Describes a Service port at a moment: adds ages, and the counts of causes.

A view doesn't change with time alone, so ages and counts are added when the view is shown.
"""

from __future__ import annotations

from collections.abc import Collection

from ..causes.cause import Cause
from ..causes.say import Form, say
from ..facts import PortFacts
from ..facts.units import format_seconds, format_times, plural
from .clauses import joined


def sentence_at(
    port: PortFacts, now: float, timed: Collection[Cause] = (), above: Collection[object] = ()
) -> str:
    """Return the sentence about a Service port's state.

    Args:
        now: Unix time.
        timed: Causes whose counts and times are appended to the clauses that state them.
        above: Facts of causes that are already shown. Clauses that state only these causes are
            omitted; instead of an omitted first clause, the sentence begins with the state's word.
    """
    state = port.state
    texts: list[str] = []
    for clause in state.clauses:
        age = last_answer(port, now) if clause.is_dated else ""
        causes = [state.causes[place] for place in clause.causes if place < len(state.causes)]
        if causes and all(cause.fact in above for cause in causes):
            # Begin with the state's word, because the next clause may only supplement the omitted
            # one.
            texts = texts or [state.word]
            continue
        times = (times_of(cause, now) for cause in causes if cause in timed)
        texts.append(f"{clause.text}{f' ({age})' if age else ''}{''.join(times)}")
    return joined(texts) if texts else state.sentence


def last_answer(port: PortFacts, now: float) -> str:
    """Return ``last answer 2 min ago`` for a port without a client in the last minute; or empty."""
    if not port.is_quiet:
        return ""
    return f"last answer {format_seconds(max(0.0, now - port.sent_at))} ago"


def cause_at(cause: Cause, now: float, form: Form = Form.WHOLE) -> str:
    """Return a cause as text, followed by :func:`times_of`."""
    return f"{say(cause, form)}{times_of(cause, now)}"


def times_of(cause: Cause, now: float) -> str:
    """Return `` (3 times, last 2 s ago)`` for a cause; empty if it isn't counted."""
    return format_times(cause.count, cause.last_at, now)


def and_mistakes(port: PortFacts) -> str:
    """Return ``; also: …``, about settings without effect, to append to the sentence; or empty.

    Only one of several mistakes is shown, here or in the sentence; the others are counted.
    """
    mistakes = {note.fact: note for note in port.notes if note.code.traits.is_mistake}
    return also(list(mistakes.values()), {cause.fact for cause in port.state.stated})


def also(mistakes: Collection[Cause], stated: Collection[object]) -> str:
    """Return ``; also: …; 2 further notes``, about mistakes that aren't stated yet; or empty.

    It contains the first mistake, unless one was stated already, and the number of the others.

    Args:
        mistakes: All mistakes, without duplicates.
        stated: The facts of causes that are already shown.
    """
    others = [mistake for mistake in mistakes if mistake.fact not in stated]
    shown = f"; also: {say(others.pop(0))}" if others and len(others) == len(mistakes) else ""
    return f"{shown}; {plural(len(others), 'further note')}" if others else shown
