import pickle

from userspace_proxy.errors import ListenError
from userspace_proxy.model import ServiceKey
from userspace_proxy_testing.calls import PROXY, Call, CallResult


def test_an_unpickled_call_equals_the_pickled_call():
    call = Call(PROXY, "delete", (ServiceKey("shop", "web"),), {"port": 80})
    assert pickle.loads(pickle.dumps(call)) == call


def test_an_unpickled_error_has_its_hint():
    error = CallResult(error=ListenError("cannot listen", hint="use another"))
    arrived = pickle.loads(pickle.dumps(error)).error
    assert isinstance(arrived, ListenError)
    assert (str(arrived), arrived.hint) == ("cannot listen (use another)", "use another")
