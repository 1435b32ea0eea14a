"""Slices that were meant for another Service than they name."""

import pytest

from userspace_proxy.model import CauseCode, ServiceKey, SliceKey
from userspace_proxy.policy.orphans import Orphans

WEB = ServiceKey("shop", "web")


def orphans(**slices):
    """Orphans by the Service that they name, written ``namespace__name``."""
    return Orphans({ServiceKey(*k.split("__")): [SliceKey(*v)] for k, v in slices.items()})


def test_a_slice_of_another_namespace_that_names_the_service_was_meant_for_it():
    cause = orphans(shopp__web=("shopp", "web-x")).meant_for(WEB)
    assert cause.code is CauseCode.SLICE_ELSEWHERE
    assert str(cause) == "EndpointSlice shopp/web-x names this Service, from another namespace"
    assert cause.object == "EndpointSlice shopp/web-x"


def test_a_slice_with_a_similar_name_of_a_service_was_meant_for_it():
    cause = orphans(shop__wbe=("shop", "web-x")).meant_for(WEB)
    assert cause.code is CauseCode.SLICE_ORPHANED
    assert str(cause) == (
        'EndpointSlice shop/web-x names "wbe", which does not exist (did you mean "web"?)'
    )


def test_the_same_name_elsewhere_is_preferred_to_a_similar_one_here():
    both = orphans(shop__wbe=("shop", "web-x"), shopp__web=("shopp", "web-y"))
    assert both.meant_for(WEB).code is CauseCode.SLICE_ELSEWHERE


@pytest.mark.parametrize(
    "slices",
    [
        pytest.param({}, id="none"),
        pytest.param({"shop__database": ("shop", "db-x")}, id="another-name"),
        pytest.param({"other__wbe": ("other", "web-x")}, id="a-similar-name-elsewhere"),
    ],
)
def test_other_slices_were_not_meant_for_it(slices):
    assert orphans(**slices).meant_for(WEB) is None


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
def test_names_are_similar_if_one_letter_differs(named, is_similar):
    some = orphans(**{f"shop__{named}": ("shop", "web-x")})
    shop = ServiceKey("shop", "webshop")
    assert some.concerns(shop) is is_similar
    assert (some.meant_for(shop) is not None) is is_similar


def test_names_of_a_letter_or_two_are_not_similar():
    some = orphans(shop__a=("shop", "a-x"), shop__db=("shop", "db-x"))
    assert not any(some.concerns(ServiceKey("shop", name)) for name in ("b", "dc", "d"))


def test_it_concerns_services_of_that_name_anywhere():
    some = orphans(other__api=("other", "api-x"))
    assert [some.concerns(ServiceKey("a", name)) for name in ("api", "db")] == [True, False]
