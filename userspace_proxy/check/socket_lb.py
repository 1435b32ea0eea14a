"""Checks whether connect() of this node's programs can be translated, as ``--socket-lb`` asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..kernel.bpf.other_hooks import read_hooks
from ..kernel.hook_rights import HookRights, read_rights
from ..kernel.offers import KernelOffers
from ..steering.others.hooks import OtherHook, judge_hooks
from .finding import Finding, error, ok, warning

_TOPIC = "socket LB"
# Each cgroup has it but the root of all. Source: cgroup-v2.rst.
_NOT_IN_THE_ROOT = "cgroup.events"
_NAME_A_FOLDER = "mount the node's root of cgroup v2, as the chart's socketLB does"


def look_at_hooks(
    wanted: str, taken: str, kernel: KernelOffers, cgroup: Path | None, names: Path | None
) -> list[Finding]:
    """Read what hooks need, and what is attached, and judge it.

    Args:
        wanted: The value of ``--socket-lb``.
        taken: The chosen steering; empty if none works here.
        kernel: What it offers.
        cgroup: The folder for the hooks; None: there is none.
        names: The mount of bpffs; None: there is none.
    """
    if wanted == "off" or taken != "nftables":
        return judge_hook_rights(wanted, taken, None, ())
    rights = read_rights(kernel, cgroup, names)
    others: Sequence[OtherHook] = ()
    is_part = cgroup is not None and (cgroup / _NOT_IN_THE_ROOT).exists()
    if cgroup is not None and rights.lack() is None:
        try:
            others = judge_hooks(read_hooks(cgroup, names))
        except OSError as exc:
            what = f"can't read what is attached: {exc.strerror}"
            return [_refusal(wanted)(_TOPIC, what, str(cgroup), _NAME_A_FOLDER)]
    return judge_hook_rights(wanted, taken, rights, others, is_part=is_part)


def judge_hook_rights(
    wanted: str,
    taken: str,
    rights: HookRights | None,
    others: Sequence[OtherHook],
    *,
    is_part: bool = False,
) -> list[Finding]:
    """Report what keeps connect() from being translated.

    Args:
        rights: What was found; None: nothing was read.
        others: What other programs do at connect().
        is_part: The folder isn't the root of cgroup v2.
    """
    if wanted == "off":
        return []
    if rights is None:
        what = f"--socket-lb={wanted} has no effect: steering {taken or 'none'} has no kernel path"
        return [_refusal(wanted)(_TOPIC, what, hint="--steering=nftables, or --socket-lb=off")]
    return list(_judge(wanted, rights, others, is_part=is_part))


def _judge(
    wanted: str, rights: HookRights, others: Sequence[OtherHook], *, is_part: bool
) -> Iterator[Finding]:
    if (lack := rights.lack()) is not None:
        yield _refusal(wanted)(_TOPIC, lack.what, hint=lack.hint)
        return
    for other in others:
        mark = _refusal(wanted) if other.replaces else warning
        yield mark(_TOPIC, other.what, other.where, other.hint)
    if any(other.replaces for other in others):
        return
    if is_part:
        yield warning(
            _TOPIC,
            "this isn't the root of cgroup v2: only programs in it are translated at connect(), "
            "rules lead the others",
            str(rights.cgroup),
            _NAME_A_FOLDER,
        )
    else:
        yield ok(_TOPIC, "connect() of this node's programs can be translated", str(rights.cgroup))


def _refusal(wanted: str) -> Callable[..., Finding]:
    return error if wanted == "required" else warning
