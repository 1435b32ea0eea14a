"""Makes facts, for status, page and ``check``, of what the kernel offers."""

from __future__ import annotations

import os

from ..facts import KernelFacts, KernelLackFacts
from ..kernel.offers import NEEDS, KernelOffers


def facts_of_kernel(kernel: KernelOffers) -> KernelFacts:
    """Return the kernel's release, what it lacks that anything needs, and what wasn't tried."""
    needs = ((name, NEEDS[name]) for name in kernel.missing())
    lacks = [
        KernelLackFacts(name, need.fails, need.instead, need.brings)
        for name, need in needs
        if need.fails
    ]
    forbidden = [name for name, need in NEEDS.items() if need.fails and name in kernel.untried]
    return KernelFacts(os.uname().release, lacks, forbidden, bool(kernel.unasked))
