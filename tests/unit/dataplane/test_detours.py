import errno

from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.failures import dial_failure
from userspace_proxy.model.serving import Serving

POD_A, POD_B, POD_C = (SocketAddress(f"10.0.0.{number}", 80) for number in (1, 2, 3))


def test_failures_of_a_detour_are_logged_as_on_purpose_and_end_with_it(caplog):
    group, returned = EndpointGroup("shop/web", Serving([POD_A, POD_B])), []
    group.outcomes.on_returned = returned.append
    group.update(Serving([POD_A, POD_B], detours=((POD_A, POD_C),)))
    group.outcomes.failed(POD_A, dial_failure(errno.ECONNREFUSED, POD_A.ip), 1.0)
    assert caplog.messages[0].endswith("(a fault on purpose)")
    group.update(Serving([POD_A, POD_B]))
    assert (group.balancers.current.ejected(1.0), returned) == ({}, [POD_A])
    assert not group.counters_of(POD_A).dials.is_on
    group.outcomes.failed(POD_A, dial_failure(errno.ECONNREFUSED, POD_A.ip), 2.0)
    assert group.counters_of(POD_A).dials.failures == 1
    assert not caplog.messages[-1].endswith("(a fault on purpose)")
