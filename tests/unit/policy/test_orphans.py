"""Tests of slices that name one Service but were meant for another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.slices import slice_elsewhere, slice_orphaned, slice_unlabelled
from userspace_proxy.cluster import PersistentMap, Slices
from userspace_proxy.model import ServiceKey, SliceKey
from userspace_proxy.policy.orphans import ORPHANS_MAX, Orphans

from ..kept import kept_by
from ..model.samples import slice_of

WEB = ServiceKey("shop", "web")


def of_keys(*keys):
    return Slices.of(slice_of(key=key.name, of=ServiceKey(key.namespace, "")) for key in keys)


def orphans(**slices):
    """Return orphans; each argument is the Service that a slice names, ``namespace__name``."""
    made = Orphans()
    change(made, {ServiceKey(*k.split("__")): of_keys(SliceKey(*v)) for k, v in slices.items()})
    return made


def change(orphans, slices):
    """Apply a change; return the predicate for affected Services and the number of turns."""
    turns, count = orphans.change(slices), 0
    while True:
        try:
            next(turns)
        except StopIteration as end:
            return end.value, count
        count += 1


def concerned(name, *services):
    """Return the Services that a slice in the namespace shop with this name may affect."""
    concerns, _ = change(Orphans(), {ServiceKey("shop", name): of_keys(SliceKey("shop", "x"))})
    return [service for service in services if concerns(service)]


def named(*names):
    return {ServiceKey("shop", name): of_keys(SliceKey("shop", f"{name}-x")) for name in names}


def test_a_slice_in_another_namespace_naming_the_service_is_a_candidate():
    both = orphans(shopp__web=("shopp", "web-x"), shops__web=("shops", "web-y"))
    assert both.meant_for(WEB) == slice_elsewhere(WEB, SliceKey("shopp", "web-x"))


def test_a_slice_naming_a_similar_service_is_a_candidate():
    cause = orphans(shop__wbe=("shop", "web-x")).meant_for(WEB)
    assert cause == slice_orphaned(WEB, SliceKey("shop", "web-x"), "wbe")


def test_a_service_of_equal_name_is_suggested_before_a_service_of_similar_name():
    both = orphans(shop__wbe=("shop", "web-x"), shopp__web=("shopp", "web-y"))
    assert both.meant_for(WEB).code is CauseCode.SLICE_ELSEWHERE


def nameless(*names):
    """Return slices of the namespace shop that name no Service."""
    return {ServiceKey("shop", ""): of_keys(*(SliceKey("shop", name) for name in sorted(names)))}


@pytest.mark.parametrize("name", ["web", "web-1", "web-admin-1"])
def test_an_unlabelled_slice_prefixed_with_the_service_name_is_a_candidate(name):
    some = Orphans()
    concerns, _ = change(some, nameless("wea", "web.1", "webs-1", name, "wed"))
    assert some.meant_for(WEB) == slice_unlabelled(WEB, SliceKey("shop", name))
    assert concerns(WEB)
    concerns, _ = change(some, nameless("wea", "web.1", "webs-1", "wed"))
    assert some.meant_for(WEB) is None
    assert concerns(WEB)


def test_only_changed_unlabelled_slices_affect_services():
    some = Orphans()
    change(some, nameless("web-1", "cart-1"))
    concerns, _ = change(some, nameless("web-1"))
    assert [key.name for key in (WEB, ServiceKey("shop", "cart")) if concerns(key)] == ["cart"]


def test_an_unlabelled_slice_in_another_namespace_is_not_a_candidate():
    some = Orphans()
    concerns, _ = change(some, nameless("web-1"))
    elsewhere = ServiceKey("bank", "web")
    assert (some.meant_for(elsewhere), concerns(elsewhere)) == (None, False)


def test_a_slice_naming_a_similar_service_is_preferred_to_an_unlabelled_slice():
    some = Orphans()
    change(some, {**named("wbe"), **nameless("web-1")})
    assert some.meant_for(WEB) == slice_orphaned(WEB, SliceKey("shop", "wbe-x"), "wbe")


@pytest.mark.parametrize(
    ("named", "is_similar"),
    [
        pytest.param("webshp", True, id="a-letter-missing"),
        pytest.param("webshoop", True, id="a-letter-too-much"),
        pytest.param("webshup", True, id="a-letter-wrong"),
        pytest.param("wesbhop", True, id="two-letters-swapped"),
        pytest.param("webs", False, id="two-letters-missing"),
        pytest.param("shopweb", False, id="other-order"),
    ],
)
def test_service_names_that_differ_by_one_letter_or_a_swap_are_similar(named, is_similar):
    some = orphans(**{f"shop__{named}": ("shop", "web-x")})
    shop = ServiceKey("shop", "webshop")
    assert (concerned(named, shop) == [shop]) is is_similar
    assert (some.meant_for(shop) is not None) is is_similar


@pytest.mark.parametrize(
    ("named", "service", "is_similar"),
    [
        pytest.param("landing", "landing-v2", True, id="suffix-of-the-service"),
        pytest.param("reporting-db", "reporting", True, id="suffix-of-the-slice"),
        pytest.param("landing-v1", "landing-v2", True, id="a-letter-wrong"),
        pytest.param("shop-db", "shop-cache", False, id="two-suffixes"),
        pytest.param("landing", "landing-page-v2", False, id="two-parts"),
    ],
)
def test_service_names_that_differ_by_a_suffix_are_similar(named, service, is_similar):
    some, key = orphans(**{f"shop__{named}": ("shop", "web-x")}), ServiceKey("shop", service)
    # concerned() may yield further Services, for which planning again has no effect.
    assert key in concerned(named, key) or not is_similar
    assert (some.meant_for(key) is not None) is is_similar
    elsewhere = ServiceKey("other", service)
    assert concerned(named, elsewhere) == []
    assert some.meant_for(elsewhere) is None


def test_service_names_of_one_or_two_letters_are_not_similar():
    keys = [ServiceKey("shop", name) for name in ("b", "dc", "d")]
    some = orphans(shop__a=("shop", "a-x"), shop__db=("shop", "db-x"))
    assert concerned("a", *keys) == concerned("db", *keys) == []
    assert not any(some.meant_for(key) for key in keys)


def test_an_orphan_affects_services_of_the_same_name_in_any_namespace():
    api, db = ServiceKey("a", "api"), ServiceKey("a", "db")
    assert concerned("api", api, db, ServiceKey("a", "apis")) == [api]


def test_only_the_first_names_of_a_namespace_are_considered():
    names = [f"web-{n:04}-{'x' * 20}" for n in range(ORPHANS_MAX + 1)]
    some, last = Orphans(), ServiceKey("a", names[-1])
    change(some, named(*names))
    assert some.meant_for(ServiceKey("a", names[-2])) is not None
    assert some.meant_for(last) is None
    concerns, _ = change(some, named(*names[1:]))
    assert concerns(last)
    assert some.meant_for(last) is not None
    assert some.meant_for(ServiceKey("a", names[0])) is None


def test_the_cost_of_a_change_does_not_grow_with_the_number_of_orphans():
    names = [f"web-{n:05}" for n in range(5 * ORPHANS_MAX)]
    some, before = Orphans(), PersistentMap().changed(named(*names))
    assert change(some, before)[1] == ORPHANS_MAX
    assert change(some, before.changed(named("aaa")))[1] == 2
    assert change(some, before)[1] == 2
    assert change(some, before.changed(named("zzz")))[1] == 0


NAMES = st.lists(st.text("ab-", min_size=1, max_size=4), max_size=8, unique=True)


@given(st.lists(NAMES, max_size=5))
def test_incremental_changes_give_the_same_candidates_as_a_fresh_index(changes):
    some = Orphans()
    for names in changes:
        change(some, named(*names))
        fresh = Orphans()
        change(fresh, named(*names))
        assert kept_by(some) == kept_by(fresh)
        for name in ("a", "ab", "aba", "abba", "bab", "a-b", "ab-a-b"):
            for namespace in ("shop", "other"):
                key = ServiceKey(namespace, name)
                assert some.meant_for(key) == fresh.meant_for(key)
