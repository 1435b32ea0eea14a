from userspace_proxy.facts import LatelyFacts
from userspace_proxy.facts.lately import LATELY_NAMES


def test_what_was_counted_lately_is_in_the_order_of_its_names_without_the_cause():
    lately = LatelyFacts(*range(1, 12))
    assert lately.counts() == tuple(range(1, 12))
    assert (LATELY_NAMES[0], *LATELY_NAMES[-2:]) == ("connections", "unanswered_requests", "flaps")
