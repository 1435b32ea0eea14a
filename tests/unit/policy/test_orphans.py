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


def test_it_concerns_services_of_the_namespace_and_of_the_name():
    some = orphans(shop__wbe=("shop", "web-x"), other__api=("other", "api-x"))
    concerned = [ServiceKey("shop", "db"), ServiceKey("a", "api"), ServiceKey("a", "db")]
    assert [some.concerns(key) for key in concerned] == [True, True, False]
