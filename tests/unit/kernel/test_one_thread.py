import threading

from userspace_proxy.kernel.one_thread import InOneThread, OneThread


async def test_all_calls_run_in_the_same_worker_thread():
    thread = OneThread("steering")
    threads = {await thread.run(threading.get_ident) for _ in range(3)}
    thread.close()
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_the_thread_starts_with_the_first_call_and_restarts_after_close():
    thread = OneThread("steering")
    assert not thread.has_begun
    for _ in range(2):
        name = await thread.run(lambda: threading.current_thread().name)
        assert name.startswith("steering")
        assert thread.has_begun
        thread.close()
        thread.close()
        assert not thread.has_begun


class Place:
    """Records the threads that created and closed it."""

    def __init__(self):
        self.made_in = threading.get_ident()
        self.closed_in = None

    def close(self):
        self.closed_in = threading.get_ident()


async def test_an_object_is_created_used_and_closed_in_one_thread():
    place = InOneThread("steering", Place)
    thing = await place.do(lambda thing: thing)
    assert thing.made_in == await place.do(lambda _: threading.get_ident())
    await place.close()
    assert thing.closed_in == thing.made_in != threading.get_ident()


async def test_an_object_is_created_by_the_first_call_and_recreated_after_close():
    made = []

    def make():
        made.append(Place())
        return made[-1]

    place = InOneThread("steering", make)
    await place.close()
    assert made == []
    first = await place.do(lambda thing: thing)
    assert await place.do(lambda thing: thing) is first
    await place.close()
    await place.close()
    assert await place.do(lambda thing: thing) is not first
    await place.close()
