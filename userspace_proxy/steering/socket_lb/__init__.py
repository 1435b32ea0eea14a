"""Translates this node's connect() calls by BPF, before packets reach the kernel path's rules.

    socket_lb     programs that redirect connect() from a frontend to an endpoint (C)
    socket_maps   the bytes in these programs' maps; pure
    desired       which frontends are translated, and the map elements for them; pure
    programs      programs, maps and links, and their names in bpffs
    hooks         loads, updates and repairs one proxy's programs and maps
    steering      `nftables` steering with hooks

Rule 1: rules steer all frontends, including the frontends that hooks translate, so if hooks fail,
nothing else breaks. Hooks translate only frontends whose endpoints any client may use.
Rule 2: an endpoint's number is never reused, so no entry points to a wrong endpoint.
"""

from .hooks import HookOptions, HookPlace, Hooks, find_place
from .programs import hooked_labels, remove_abandoned_hooks, remove_hooks
from .steering import HookedSteering, check_hooks, make_hooked_steering

__all__ = [
    "HookOptions",
    "HookPlace",
    "HookedSteering",
    "Hooks",
    "check_hooks",
    "find_place",
    "hooked_labels",
    "make_hooked_steering",
    "remove_abandoned_hooks",
    "remove_hooks",
]
