from userspace_proxy.plane import PortPool


def take_next(pool):
    port = next(pool.candidates())
    pool.take(port)
    return port


def test_every_number_of_the_range_is_a_candidate_once():
    assert list(PortPool(5, 8).candidates()) == [5, 6, 7, 8]


def test_the_preferred_number_comes_first_and_once():
    assert list(PortPool(5, 8).candidates(preferred=7)) == [7, 5, 6, 8]


def test_a_preferred_number_outside_of_the_range_or_taken_is_no_candidate():
    pool = PortPool(5, 6)
    pool.take(6)
    assert list(pool.candidates(preferred=80)) == [5]
    assert list(pool.candidates(preferred=6)) == [5]


def test_a_number_that_was_given_back_is_used_again_after_all_others():
    pool = PortPool(5, 7)
    assert [take_next(pool), take_next(pool)] == [5, 6]
    pool.give(5)
    pool.give(5)
    assert [take_next(pool), take_next(pool)] == [7, 5]


def test_the_next_search_begins_behind_what_others_have():
    pool = PortPool(5, 7)
    for port in pool.candidates():
        if port == 6:
            break
    assert list(pool.candidates()) == [7, 5, 6]


def test_a_full_pool_has_no_candidates():
    pool = PortPool(5, 5)
    pool.take(5)
    assert list(pool.candidates()) == []
    assert not pool.free


def test_spared_numbers_are_offered_only_if_preferred_until_that_is_lifted():
    pool = PortPool(5, 7)
    pool.spare([5, 6])
    assert list(pool.candidates()) == [7]
    assert list(pool.candidates(preferred=6)) == [6, 7]
    pool.spare(())
    assert list(pool.candidates()) == [5, 6, 7]


def test_membership_is_that_of_the_range():
    pool = PortPool(5, 6)
    assert [port in pool for port in (4, 5, 6, 7, "5")] == [False, True, True, False, False]
