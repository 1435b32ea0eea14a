from msgspec.structs import replace

from userspace_proxy.model import Handling, Hold, ServiceKey, SocketAddress
from userspace_proxy.model.cordoned import Cordoned
from userspace_proxy.model.serving import Serving

from ..kept import kept_by

HOLDING = Handling(hold=Hold(60.0))
WEB = ServiceKey("shop", "web")
POD_A, POD_B = SocketAddress("192.0.2.1", 80), SocketAddress("192.0.2.2", 80)


def cordoned(*endpoints):
    cordoned = Cordoned()
    cordoned.set(WEB, endpoints)
    return cordoned


def test_cordoned_endpoints_get_no_clients_and_other_endpoints_do():
    weights = ((POD_A, 3), (POD_B, 1))
    serving = Serving((POD_A, POD_B), outside=(POD_A,), weights=weights, handling=HOLDING)
    led = cordoned(POD_A).lead(WEB, serving)
    assert (led.endpoints, led.outside, led.weights) == ((POD_B,), (), ((POD_B, 1),))


def test_cordons_have_no_effect_on_a_service_without_hold():
    serving = Serving((POD_A,))
    assert cordoned(POD_A).lead(WEB, serving) is serving


def test_cordoned_endpoints_are_served_as_leaving_and_not_as_removed():
    handling = Handling(hold=Hold(60.0), removal_s=0.0)
    for serving in (Serving((POD_A,)), Serving((), outside=(POD_A,))):
        serving = replace(serving, handling=handling, leaving=(POD_B,))
        led = cordoned(POD_A).lead(WEB, serving)
        assert led.handling == HOLDING
        assert led.leaving == (POD_B, POD_A)


def test_an_endpoint_no_longer_cordoned_is_served():
    one = cordoned(POD_A)
    assert one.of(WEB) == {POD_A}
    one.set(WEB, ())
    assert one.of(WEB) == frozenset()
    assert kept_by(one) == kept_by(Cordoned())
    serving = Serving((POD_A,), handling=HOLDING)
    assert one.lead(WEB, serving) is serving
