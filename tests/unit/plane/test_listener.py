from userspace_proxy.model import Protocol, Serving, SocketAddress
from userspace_proxy.plane import Group, Listener
from userspace_proxy.plane.listening_sockets import ListeningSockets
from userspace_proxy.plane.messages import OpenListener


def test_a_worker_gets_the_address_that_was_chosen():
    group = Group(7, "shop/web:http")
    group.change(Serving())
    at = SocketAddress("127.0.0.1", 0)
    sockets = ListeningSockets(Protocol.TCP, at, freebind=False, workers=(0, 2))
    listener = Listener("web", 3, group, Protocol.TCP, sockets)
    assert (listener.workers, listener.address) == ((0, 2), sockets.at)
    assert listener.opening(-5) == OpenListener(-5, 7, Protocol.TCP, sockets.at)
    sockets.close()
