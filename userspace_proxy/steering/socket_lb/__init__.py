"""Translates connect() of this node's programs by BPF, above the rules of the kernel path.

    desired    which frontends are translated, and the elements of maps that say so; pure
    programs   programs, maps and links, and their names in bpffs
    hooks      what a proxy does with them
    steering   steering nftables with hooks

Rule 1: rules lead whatever the hooks don't, so hooks translate only what any client may dial, and a
failure of theirs fails nothing else.
Rule 2: what leads away from an endpoint is in force before the endpoint's number is used again,
which is never.
"""

from .hooks import HookPlace, Hooks, HookState, find_place
from .programs import hooked_labels, remove_abandoned_hooks, remove_hooks
from .steering import HookedSteering

__all__ = [
    "HookPlace",
    "HookState",
    "HookedSteering",
    "Hooks",
    "find_place",
    "hooked_labels",
    "remove_abandoned_hooks",
    "remove_hooks",
]
