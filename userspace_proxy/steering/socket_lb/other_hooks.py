"""Assesses other programs at the same connect() as the proxy's hooks; pure.

    connect()  ─▶ each program may replace the address, and the next program sees the new address
    sock_ops   ─▶ each program sets the events for which all of them are called

Cilium and Calico translate Services there: two programs can't both translate an address.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ...kernel.bpf.other_hooks import Hook

OWN_PINS = "userspace-proxy"
"""The bpffs directory with the pins of all userspace-proxies."""
_SOCKOPS = "sockops"
# The beginnings of a program's name, which the kernel truncates after 15 bytes, or of its pin.
_CILIUM = ("cil_sock", "sock4_connect", "sock6_connect", "cilium/")
_CALICO = ("calico_connect", "cali_ctlb", "calico")
_REPLACEMENTS: Mapping[tuple[str, ...], tuple[str, str]] = {
    _CILIUM: ("Cilium", "kubeProxyReplacement=false in Cilium"),
    _CALICO: ("Calico", "bpfConnectTimeLoadBalancing: Disabled in Calico's FelixConfiguration"),
}


@dataclass(frozen=True, slots=True)
class OtherHook:
    """A program of another proxy, or an unknown program."""

    what: str
    """The program's actual or possible effect."""
    where: str
    """Its name, id, and hook."""
    hint: str
    replaces: bool = False
    """It translates Services, or admits no other program: then hooks aren't attached."""


def judge_hooks(hooks: Iterable[Hook], own: Collection[int] = ()) -> list[OtherHook]:
    """Return how other programs affect the proxy's hooks, Service translators first.

    Args:
        own: The ids of this proxy's programs. Programs pinned by any userspace-proxy are also
            skipped.
    """
    others: dict[int, list[Hook]] = {}
    for hook in hooks:
        if hook.program not in own and not hook.pin.startswith(f"{OWN_PINS}/"):
            others.setdefault(hook.program, []).append(hook)
    found = list(_judge(others.values()))
    # All programs of one replacement become one finding.
    replacements = {one.what: one for one in reversed(found) if one.replaces}
    return [*replacements.values(), *(one for one in found if not one.replaces)]


def _judge(programs: Iterable[list[Hook]]) -> Iterator[OtherHook]:
    for hooks in programs:
        first = hooks[0]
        sections = ", ".join(hook.section.removeprefix("cgroup/") for hook in hooks)
        called = first.name or first.pin.rpartition("/")[2] or "a program"
        where = f"{called}, id {first.program}, at {sections}"
        if sole := next((hook.section for hook in hooks if hook.is_sole), ""):
            what = f"another program at {sole} admits no other (without BPF_F_ALLOW_MULTI)"
            yield OtherHook(what, where, "--socket-lb=off, or end what loads it", replaces=True)
        elif first.section == _SOCKOPS:
            what = "another program may keep the proxy from following connections"
            yield OtherHook(what, where, f"bpftool prog show id {first.program}")
        elif (replacement := _replacement(first)) is not None:
            name, setting = replacement
            what = f"{name} translates Services at connect()"
            yield OtherHook(what, where, f"--socket-lb=off, or {setting}", replaces=True)
        else:
            yield OtherHook(
                "another program may change what this node's programs dial",
                where,
                f"bpftool prog show id {first.program}; if it translates Services, --socket-lb=off",
            )


def _replacement(hook: Hook) -> tuple[str, str] | None:
    return next(
        (
            words
            for begins, words in _REPLACEMENTS.items()
            if hook.name.startswith(begins) or hook.pin.startswith(begins)
        ),
        None,
    )
