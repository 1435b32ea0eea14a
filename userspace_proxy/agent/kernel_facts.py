"""Makes facts, for status, page and ``check``, of what the kernel offers."""

from __future__ import annotations

import os

from ..facts import KernelFacts, KernelLackFacts
from ..kernel.offers import NEEDS, KernelOffers


def facts_of_kernel(kernel: KernelOffers) -> KernelFacts:
    """Return the kernel's release, and what it lacks that anything needs."""
    needs = ((name, NEEDS[name]) for name in kernel.missing())
    lacks = [
        KernelLackFacts(name, need.fails, need.instead, need.brings)
        for name, need in needs
        if need.fails
    ]
    return KernelFacts(os.uname().release, lacks)
