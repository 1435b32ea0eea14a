import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.model import SocketAddress
from userspace_proxy.plane.changes import EndpointChanges, diff_endpoints

PODS = [SocketAddress(f"10.0.0.{number}", 80) for number in range(10)]
A, B, C, D = PODS[:4]
some_pods = st.lists(st.sampled_from(PODS), unique=True)


def applied(changes, have):
    """Do what a worker does."""
    endpoints = [e for e in have if e not in set(changes.removed)]
    for place, endpoint in changes.added:
        endpoints.insert(place, endpoint)
    return endpoints


@given(some_pods, some_pods)
def test_the_changes_make_one_list_of_the_other(have, want):
    assert applied(diff_endpoints(have, want), have) == want


@given(some_pods)
def test_between_equal_lists_nothing_changes(have):
    assert diff_endpoints(have, list(have)) == ([], [])


@given(st.lists(st.sampled_from(PODS), unique=True, min_size=1), st.data())
def test_one_that_comes_or_goes_is_the_only_one_named(everybody, data):
    place = data.draw(st.integers(0, len(everybody) - 1))
    others = everybody[:place] + everybody[place + 1 :]
    one = everybody[place]
    assert diff_endpoints(everybody, others) == EndpointChanges([one], [])
    assert diff_endpoints(others, everybody) == EndpointChanges([], [(place, one)])


@pytest.mark.parametrize(
    ("have", "want", "expected"),
    [
        pytest.param([A, B, C], [A, D, C], ([B], [(1, D)]), id="replaced"),
        pytest.param([A, B], [B, A], ([A, B], [(0, B), (1, A)]), id="changed-places"),
        pytest.param([], [A, B], ([], [(0, A), (1, B)]), id="first"),
        pytest.param([A, B], [], ([A, B], []), id="last"),
    ],
)
def test_changes(have, want, expected):
    assert diff_endpoints(have, want) == expected
