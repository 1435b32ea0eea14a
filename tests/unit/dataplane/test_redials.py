from collections import Counter

from userspace_proxy.dataplane.redials import REDIALS, Redials

from .waiting import until


async def test_in_each_turn_a_bounded_number_is_dialled_in_order(rig):
    redials = Redials(rig.engine.reactor)
    dialled: list[tuple[int, int]] = []
    for number in range(2 * REDIALS + 1):
        redials.add(lambda number=number: dialled.append((number, rig.engine.reactor.turn)))
    await until(lambda: len(dialled) == 2 * REDIALS + 1)
    assert [number for number, _ in dialled] == list(range(2 * REDIALS + 1))
    assert sorted(Counter(turn for _, turn in dialled).values()) == [1, REDIALS, REDIALS]


async def test_a_client_that_fails_again_waits_behind_the_others(rig):
    redials = Redials(rig.engine.reactor)
    dialled: list[str] = []

    def fail():
        dialled.append("fails")
        if dialled.count("fails") < 2:
            redials.add(fail)

    redials.add(fail)
    redials.add(lambda: dialled.append("answered"))
    await until(lambda: len(dialled) == 3)
    assert dialled == ["fails", "answered", "fails"]
