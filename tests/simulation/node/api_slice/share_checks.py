"""What each namespace may have: what is too much is left out with its cause, and the rest stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from userspace_proxy.facts import RejectedFacts

from .plan import CROWDED
from .reading import Item, Key, weight
from .truth import History

if TYPE_CHECKING:
    from .checks import Checks

LIMITED = ("Service", "EndpointSlice")
_UNREAD = 1024
"""What an object takes that couldn't be read yet."""


def said(*words: object) -> Callable[[], str]:
    """Return what makes a sentence of some words."""
    return lambda: " ".join(map(str, words))


def check_shares(
    checks: Checks,
    found: list[Item],
    rejected: Sequence[RejectedFacts],
    *,
    is_last: bool,
) -> None:
    """Check what is shown of each namespace.

    Args:
        is_last: Shortly after a change: what there is room for since is found by the next list.
    """
    # The number of further objects that can't be read has no place.
    places = {item.place for item in rejected if item.place and not item.kind}
    too_much, unsure = set[str](), set[str]()
    blind = checks.restores.blind
    for kind, namespace in _places(checks.histories):
        if kind in blind:
            checks.judgements.excuse("share", "history went back, and on")
            continue
        kept = {k: n for k, n, _ in found if k.kind == kind and k.namespace == namespace}
        missing = _check_namespace(checks, kind, namespace, kept, is_last=is_last)
        if missing:
            too_much.add(f"namespace {namespace}")
        if any(key.namespace == namespace for key in checks.histories[kind].states[-1].loose):
            unsure.add(f"namespace {namespace}")
    if not blind.isdisjoint(LIMITED):
        checks.judgements.excuse("left out", "history went back, and on")
        return
    is_right = too_much <= places <= too_much | unsure
    checks.judgements.check("left out", is_right, said(places, "not", too_much))


def _check_namespace(
    checks: Checks, kind: str, namespace: str, kept: dict[Key, int], *, is_last: bool
) -> list[Key]:
    """Check one kind; return what is left out.

    Args:
        kept: The version of each object that is shown.
    """
    limit, judgements = checks.world.plan.share_bytes, checks.judgements
    state = checks.histories[kind].states[-1]
    weights = {
        key: weight(checks.items[number])
        for key, number in state.stamps.items()
        if key.namespace == namespace and key not in state.loose
    }
    # One whose last version can't be read is shown as before, and may weigh less than that did.
    used = sum(weights.get(key, _UNREAD) for key in kept)
    judgements.check("share", used <= limit, said(kind, "in", namespace, "take", used))
    missing = sorted(weights.keys() - kept.keys())
    if missing and not is_last:
        # One that can't be read weighs what was read of it, once, or little.
        unread = [key for key in state.loose if key.namespace == namespace]
        used = sum(weights.get(key, 0) for key in kept)
        used += sum(max(_UNREAD, checks.heaviest[key]) for key in unread)
        least = min(weights[key] for key in missing)
        is_full = used > limit - limit // 8 or used + least > limit
        judgements.check("room", is_full, said(used, "of", limit, "used:", missing))
    return missing


def _places(histories: dict[str, History]) -> Iterator[tuple[str, str]]:
    for kind in LIMITED:
        stamps = histories[kind].states[-1].stamps
        for namespace in sorted({CROWDED, *(key.namespace for key in stamps)}):
            yield kind, namespace
