"""The handle of a Service, on asyncio and on uvloop, without privileges."""

import pytest

from userspace_proxy import Proxy
from userspace_proxy.causes.say import say
from userspace_proxy.errors import ListenError

from ..agent.backends import answers, ask, backend, free_address
from ..conftest import IN_BOTH_LOOPS

pytestmark = IN_BOTH_LOOPS


async def test_the_handle_of_a_replaced_service_has_no_effect():
    async with backend(b"one") as one, Proxy() as proxy:
        before = await proxy.add_service("web", port=8080)
        after = await proxy.add_service("web", port=8081, endpoints=[one])
        with pytest.raises(LookupError, match="default/web was removed or replaced"):
            await before.set_endpoints(["127.0.0.1:1"])
        with pytest.raises(LookupError, match="default/web was removed or replaced"):
            await before.put([])
        await before.remove()
        assert await ask(after.address) == b"one"
        assert after.address.port == 8081


async def test_a_removed_service_is_not_revived_by_its_handle():
    async with Proxy() as proxy:
        web = await proxy.add_service("web", port=8080)
        await web.remove()
        with pytest.raises(LookupError, match="default/web was removed"):
            await web.set_endpoints(["127.0.0.1:1"])
        assert proxy.status().ports == ()


async def test_endpoints_of_a_service_that_lost_its_address_raise_the_problem_in_the_status():
    async with Proxy() as proxy:
        web = await proxy.add_service("web", port=8080, cluster_ip="127.99.1.7")
        await proxy.add_service("api", port=8080, cluster_ip="127.99.1.7")
        with pytest.raises(ListenError) as caught:
            await web.set_endpoints(["127.0.0.1:1"])
        (ignored,) = proxy.status().ignored
        assert str(caught.value) == f"cannot serve default/web: {say(ignored.cause)}"


async def test_a_handle_says_where_its_service_is_and_how_many_endpoints_it_has():
    async with backend(b"one") as one, Proxy() as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=[one, free_address()])
        assert repr(web) == f"<Service default/web at {web.address}, 2 endpoints>"
        await answers(web.address, 2)
        assert repr(web) == f"<Service default/web at {web.address}, 2 endpoints, 1 ejected>"
        await web.set_endpoints([one])
        assert repr(web) == f"<Service default/web at {web.address}, 1 endpoint>"
        await web.remove()
        assert repr(web) == "<Service default/web, not served>"


async def test_a_standby_serves_while_the_others_do_not_answer_and_weights_count():
    async with backend(b"one") as one, backend(b"two") as two, Proxy() as proxy:
        db = await proxy.add_service("db", port=5432, endpoints=[one], standby=[two])
        assert [await ask(db.address) for _ in range(4)] == [b"one"] * 4
        await db.set_endpoints(["127.0.0.1:1"], standby=[two])
        assert [await ask(db.address) for _ in range(4)] == [b"two"] * 4
        await db.set_endpoints({one: 0, two: 5})
        assert [await ask(db.address) for _ in range(4)] == [b"two"] * 4
        await db.set_endpoints({one: 3, two: 1})
        answers = [await ask(db.address) for _ in range(8)]
        assert (answers.count(b"one"), answers.count(b"two")) == (6, 2)
