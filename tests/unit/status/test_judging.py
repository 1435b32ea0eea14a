from dataclasses import replace

from userspace_proxy.status.judging import RememberingJudge
from userspace_proxy.status.port_state import judge

from .views import make_port

WEB = make_port("web")


def test_it_judges_like_the_function():
    cart = make_port("cart", endpoints=(), reason="it has no endpoints")
    remembering = RememberingJudge()
    for port in (WEB, cart, WEB):
        assert remembering(port) == judge(port)


def test_a_view_is_judged_once_and_another_one_again():
    remembering = RememberingJudge()
    state = remembering(WEB)
    assert remembering(WEB) is state
    assert remembering(replace(WEB, problem="port in use")).word == "not served"


def test_ports_that_are_gone_are_forgotten():
    remembering = RememberingJudge()
    state = remembering(WEB)
    for n in range(10):
        remembering(make_port(f"cart-{n}"))
    remembering.forget_others((WEB,))
    assert len(remembering._known) == 1
    assert remembering(WEB) is state
