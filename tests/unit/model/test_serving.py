import pytest
from msgspec.structs import replace

from userspace_proxy.model import Handling, Hold, SocketAddress
from userspace_proxy.model.serving import Serving

POD_A, POD_B, POD_C = (SocketAddress(f"10.0.0.{number}", 80) for number in (1, 2, 3))
PARTNERS = ("203.0.113.0/24",)


@pytest.mark.parametrize(
    ("serving", "is_refusing"),
    [
        pytest.param(Serving(), True, id="no-endpoint"),
        pytest.param(Serving([POD_A]), False, id="an-endpoint-serves"),
        pytest.param(Serving(outside=()), True, id="no-endpoint-for-either-side"),
        pytest.param(Serving(outside=[POD_A]), False, id="outside-is-served"),
        pytest.param(Serving([POD_A], outside=()), False, id="inside-is-served"),
        pytest.param(Serving(admits=PARTNERS), True, id="no-endpoint-for-admitted-clients"),
        pytest.param(Serving(admits=()), False, id="all-are-dropped"),
        pytest.param(Serving(handling=Handling(hold=Hold(60))), False, id="clients-wait"),
        pytest.param(Serving([POD_A], admits=()), False, id="all-are-dropped-despite-an-endpoint"),
    ],
)
def test_clients_without_an_endpoint_are_refused_unless_dropped_or_held(serving, is_refusing):
    assert serving.is_refusing == is_refusing


def test_clients_without_a_local_endpoint_are_dropped_by_policy():
    assert Serving(admits=()).is_dropping
    assert Serving((POD_A,), outside=(), admits=("10.0.0.0/8",)).is_dropping
    assert not Serving((POD_A,), admits=("10.0.0.0/8",)).is_dropping
    assert not Serving(outside=(), admits=("10.0.0.0/8",)).is_dropping


def test_handled_replaces_only_the_handling_and_the_given_fields():
    usable = Serving(
        (POD_A, POD_B), outside=(POD_A,), weights=((POD_A, 5),), standbys=((POD_B, 1),)
    )
    asked = {"affinity_timeout_s": 60, "inside": PARTNERS, "admits": (), "leaving": (POD_C,)}
    handling = Handling(hold=Hold(60))
    assert usable.handled(handling, **asked) == replace(usable, handling=handling, **asked)


def test_detoured_replaces_only_the_detours():
    serving = Serving((POD_A,), admits=PARTNERS)
    detours = ((POD_A, POD_B),)
    assert serving.detoured(detours) == Serving((POD_A,), admits=PARTNERS, detours=detours)


@pytest.mark.parametrize(
    ("endpoints", "outside", "expected"),
    [
        pytest.param((), None, (), id="none"),
        pytest.param((POD_B, POD_A), None, (POD_B, POD_A), id="the-same-for-all"),
        pytest.param((POD_A, POD_B), (POD_B,), (POD_A, POD_B), id="a-subset-for-outside"),
        pytest.param((POD_A,), (POD_C, POD_A), (POD_A, POD_C), id="others-for-outside"),
        pytest.param((), (POD_C,), (POD_C,), id="for-outside-alone"),
        pytest.param((POD_A,), (), (POD_A,), id="none-for-outside"),
    ],
)
def test_all_endpoints_lists_every_endpoint_once(endpoints, outside, expected):
    assert Serving(endpoints, outside=outside).all_endpoints == expected


@pytest.mark.parametrize(
    ("serving", "expected"),
    [
        pytest.param(Serving((POD_A, POD_B)), ({POD_A, POD_B},) * 2, id="none-on-standby"),
        pytest.param(
            Serving((POD_A, POD_B), standbys=((POD_B, 1),)), ({POD_A},) * 2, id="one-on-standby"
        ),
        pytest.param(
            Serving((POD_A, POD_B), outside=(POD_B, POD_C), standbys=((POD_B, 1), (POD_C, 2))),
            ({POD_A}, {POD_B}),
            id="each-side-has-its-own",
        ),
        pytest.param(Serving(standbys=((POD_B, 1),)), (set(), set()), id="no-endpoint"),
    ],
)
def test_first_endpoints_are_usable_endpoints_of_the_first_priority(serving, expected):
    assert serving.first_endpoints == expected


def test_first_of_returns_endpoints_of_the_first_priority_in_order():
    serving = Serving(standbys=((POD_B, 1),))
    assert serving.first_of((POD_C, POD_B, POD_A)) == (POD_C, POD_A)


@pytest.mark.parametrize(
    ("serving", "before", "expected"),
    [
        pytest.param(Serving((POD_A, POD_B)), {POD_A}, [POD_B], id="new-endpoint"),
        pytest.param(Serving((), outside=(POD_A, POD_B)), {POD_A}, [POD_B], id="outside-only"),
        pytest.param(Serving((POD_A, POD_B)), {POD_C}, [], id="all-new"),
        pytest.param(
            Serving((POD_A, POD_B), standbys=((POD_B, 1),)), {POD_B}, [], id="alone-at-its-priority"
        ),
    ],
)
def test_newcomers_are_new_endpoints_beside_others_of_their_priority(serving, before, expected):
    assert serving.newcomers(before) == expected


def test_an_endpoint_no_longer_usable_from_a_side_is_gone():
    both = Serving((POD_A, POD_B))
    assert both.gone_in(Serving((POD_B,))) == {POD_A}
    assert both.gone_in(Serving((POD_A, POD_B), outside=(POD_B,), inside=("10.0.0.0/8",))) == {
        POD_A
    }
    assert both.gone_in(Serving((POD_A, POD_B), standbys=((POD_B, 1),))) == {POD_B}
    assert both.gone_in(both) == frozenset()


def test_if_inside_networks_change_endpoints_of_only_one_side_count_as_gone():
    split = Serving((POD_A, POD_B), outside=(POD_B,), inside=("10.0.0.0/8",))
    assert split.gone_in(replace(split, inside=("10.1.0.0/16",))) == {POD_A}
    apart = replace(split, endpoints=(POD_A,))
    assert apart.gone_in(replace(apart, inside=("10.1.0.0/16",))) == {POD_A, POD_B}


@pytest.mark.parametrize(
    ("serving", "is_uniform"),
    [
        pytest.param(Serving((POD_A,)), True, id="for-all"),
        pytest.param(Serving((POD_A,), affinity_timeout_s=60), False, id="with-affinity"),
        pytest.param(Serving((POD_A,), outside=()), False, id="with-sides"),
    ],
)
def test_serving_is_uniform_only_without_affinity_and_sides(serving, is_uniform):
    assert serving.is_uniform is is_uniform
