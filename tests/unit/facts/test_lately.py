from userspace_proxy.facts import LatelyFacts
from userspace_proxy.facts.lately import FAILED_NAMES, LATELY_NAMES


def test_clients_without_an_answer_are_those_refused_and_those_unanswered():
    assert LatelyFacts(connections=8, refused=2, unanswered=4).failed == 6


def test_what_was_counted_lately_is_in_the_order_of_its_names_without_the_cause():
    lately = LatelyFacts(*range(1, 12))
    assert lately.counts() == tuple(range(1, 12))
    failed = ("refused", "unanswered", "left", "cut", "waited", "removed")
    assert failed == FAILED_NAMES
    assert (LATELY_NAMES[0], *LATELY_NAMES[-2:]) == ("connections", "owed", "gaps")
    assert lately.most == 8, "what is owed may be nothing, and gaps are no clients"
