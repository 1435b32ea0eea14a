import errno
import os

from userspace_proxy.agent.kernel_facts import facts_of_kernel
from userspace_proxy.kernel.offers import (
    FOR_SOCKETS,
    LACKS_NOTHING,
    KernelOffers,
    read_kernel_offers,
)


def test_of_a_kernel_that_lacks_nothing_the_release_is_told():
    facts = facts_of_kernel(LACKS_NOTHING)
    assert (facts.release, list(facts.lacks)) == (os.uname().release, [])


def test_a_lack_is_told_once_and_with_what_it_means():
    kernel = KernelOffers(dict.fromkeys(("inet tables", "nat", "numgen"), errno.EOPNOTSUPP))
    (lack,) = facts_of_kernel(kernel).lacks
    assert (lack.part, lack.brings) == ("inet tables", "CONFIG_NF_TABLES_INET")
    assert lack.words.startswith("it lacks inet tables, needed for steering nftables, ")


def test_what_was_not_tried_is_told_with_the_reason():
    alone = read_kernel_offers(FOR_SOCKETS, try_others=lambda names: dict.fromkeys(names, 0))
    facts = facts_of_kernel(alone)
    assert (list(facts.forbidden), facts.is_partly_asked) == ([], True)
    forbids = read_kernel_offers(
        try_out=lambda _: errno.EPERM, try_others=lambda names: dict.fromkeys(names, 0)
    )
    facts = facts_of_kernel(forbids)
    assert ("nat" in facts.forbidden, "IPv6" in facts.forbidden) == (True, False)
    assert not facts.is_partly_asked


def test_what_nothing_uses_yet_is_not_told():
    assert not facts_of_kernel(KernelOffers({"sock_diag destroy": errno.EINVAL})).lacks
