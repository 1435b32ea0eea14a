"""Plans in which the next run of the proxy uses another steering, or another path, than the last.

steps of a plan ── a run ends: orderly, closed, killed, or within a step ──▶ the other steering
                └─ likewise ──────────────────────────────────────────────▶ the other path
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.base import KernelTarget, Target

from . import plan as p
from .drifting import OF_LOCAL
from .plan import Plan, Step

SHARE = 0.08
"""Of all plans."""
_ENDS = ("close", "kill", "kill", "clean up")
_FAULTS = (
    "refusal", "refused message", "lost answer", "query", "conntrack", "routes", "route", "sockets",
)  # fmt: skip
_OTHER_LABELS = {"": "edge-2", "edge": "", "a name with spaces": "edge"}

TargetOf = Callable[[Frontend], KernelTarget]


def with_take_overs(plan: Plan, target_of: TargetOf) -> Plan:
    """Return a plan with runs of another steering in it, or as it is, by its seed.

    Args:
        target_of: Draws a target of the kernel path.
    """
    rng = Random(f"take-overs of {plan.seed}")
    if rng.random() >= SHARE:
        return plan
    steps = list(plan.steps)
    # Drawn beside the others, which stay as they are.
    kills = Random(f"kills of {plan.seed}")
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(steps))
        if rng.random() < 0.3:
            steps[at:at] = _other_path(rng, target_of)
        else:
            away = _flow_that_stays(rng) if rng.random() < 0.15 else _other_steering(rng, target_of)
            back = _other_steering(rng, target_of)
            until = min(at + rng.randint(1, 12), len(steps))
            within = [*_within_local(rng), *_killed_local(kills), *steps[at:until]]
            steps = [*steps[:at], *away, *within, *back, *steps[until:]]
    other = _OTHER_LABELS[plan.node.proxy_name] if rng.random() < 0.6 else None
    node = replace(plan.node, other_proxy=other)
    return replace(plan, node=node, steps=tuple(steps), takes_over=True)


def _other_steering(rng: Random, target_of: TargetOf) -> list[Step]:
    """Return steps in which a run ends, and one of the other steering begins."""
    steps = [_client(rng) for _ in range(rng.randint(0, 4))]
    apply = _apply(rng, target_of, rng.choice(("userspace", "kernel", "auto")))
    if rng.random() < 0.25:
        # In the midst of a step.
        steps += [Step(p.DIE, name=p.STEERING, within=rng.randint(1, 60)), apply]
    if rng.random() < 0.15:
        # One of two tables is left.
        steps += [apply, Step(p.DRIFT, name="delete table", number=rng.randrange(1000))]
    steps += _faults(rng)
    if rng.random() < 0.2:
        steps.append(Step(p.DIE, within=rng.randint(1, 40)))
    return [
        *steps,
        Step(p.STEERING, name=rng.choice(_ENDS)),
        *_route_faults(rng),
        apply,
        *(_client(rng) for _ in range(rng.randint(0, 3))),
    ]


def _flow_that_stays(rng: Random) -> list[Step]:
    """Return steps after which a flow is there that the start of the next run can't remove.

    Neither can the first step of that run, but a later repair.
    """
    number = rng.choice([n for n, one in enumerate(p.FRONTENDS) if one.protocol is Protocol.UDP])
    frontend = p.FRONTENDS[number]
    is_ipv6 = ":" in frontend.ip
    client = rng.choice([n for n, one in enumerate(p.CLIENTS) if (one.version == 6) == is_ipv6])
    apply = Step(p.APPLY, ((frontend, rng.choice(p.PORTS)),))
    return [
        apply,
        Step(p.CLIENT, number=number, client=client, port=50_050, name="answer"),
        *[Step(p.FAULT, name="conntrack")] * 2,
        Step(p.STEERING, name="kill"),
        apply,
        Step(p.LATER, seconds=1.0),
        Step(p.REPAIR),
    ]


def _within_local(rng: Random) -> list[Step]:
    """Return steps that a run needs which steers by routes and a guard."""
    steps: list[Step] = []
    if rng.random() < 0.5:
        steps += [Step(p.LATER, seconds=1.0), Step(p.REPAIR)]
    if rng.random() < 0.3:
        # A connection is open when its frontend leaves.
        frontend, dial = _dial_tcp(rng, 50_040)
        steps += [
            Step(p.CHANGE, ((frontend, p.PORTS[0]),)),
            dial,
            Step(p.CHANGE, gone=(frontend,)),
            *(Step(kind) for kind in (p.REPAIR, p.FORGET, p.REPAIR)),
        ]
    if rng.random() < 0.3:
        name = rng.choice(OF_LOCAL)
        steps.append(Step(p.DRIFT, name=name, number=rng.randrange(1000)))
        steps += [Step(p.REPAIR)] * rng.randint(0, 2)
    return steps


def _killed_local(rng: Random) -> list[Step]:
    """Return steps in which such a run is killed while its workers have open connections."""
    if rng.random() >= 0.4:
        return []
    frontend, dial = _dial_tcp(rng, 50_041)
    gone = Step(p.CHANGE, gone=(frontend,))
    steps = [Step(p.CHANGE, ((frontend, p.PORTS[0]),)), dial]
    if rng.random() < 0.4:
        # It lingers already.
        steps += [gone, *[Step(p.REPAIR)] * rng.randint(0, 1)]
    steps += [Step(p.RESTART, name="kill"), gone, Step(p.REPAIR)]
    if rng.random() < 0.5:
        steps += [Step(p.FORGET), Step(p.REPAIR)]
    return steps


def _dial_tcp(rng: Random, port: int) -> tuple[Frontend, Step]:
    """Return a TCP frontend, and the step in which a client dials it, and is answered."""
    number = rng.choice([n for n, one in enumerate(p.FRONTENDS) if one.protocol is Protocol.TCP])
    frontend = p.FRONTENDS[number]
    clients = [n for n, one in enumerate(p.CLIENTS) if (one.version == 6) == (":" in frontend.ip)]
    dial = Step(p.CLIENT, number=number, client=rng.choice(clients), port=port, name="answer")
    return frontend, dial


def _other_path(rng: Random, target_of: TargetOf) -> list[Step]:
    """Return steps in which a run ends, and one with another ``--path`` begins."""
    return [
        _apply(rng, target_of, rng.choice(("userspace", "kernel", "auto"))),
        *(_client(rng) for _ in range(rng.randint(0, 4))),
        Step(p.RESTART, name=rng.choice(("close", "kill"))),
        _apply(rng, target_of, rng.choice(("userspace", "kernel", "auto"))),
    ]


def _faults(rng: Random) -> list[Step]:
    """Return failures of which a start meets the first."""
    if rng.random() < 0.5:
        return []
    return [
        Step(
            p.FAULT,
            name=rng.choice(_FAULTS),
            number=rng.randrange(1000),
            within=rng.choice((0, rng.randint(1, 30))),
        )
        for _ in range(rng.randint(1, 2))
    ]


def _route_faults(rng: Random) -> list[Step]:
    if rng.random() < 0.8:
        return []
    return [Step(p.FAULT, name="route", number=rng.randrange(1000))]


def _apply(rng: Random, target_of: TargetOf, path: str) -> Step:
    """Return a first step of a run, all of whose Services are on one path, or on either."""
    some = rng.sample(p.FRONTENDS, rng.randint(1, len(p.FRONTENDS)))
    targets: dict[Frontend, Target] = {}
    for one in some:
        target = replace(target_of(one), is_on=path == "kernel" or rng.random() < 0.6)
        targets[one] = target.port if path == "userspace" else target
    return Step(p.APPLY, tuple(targets.items()))


def _client(rng: Random) -> Step:
    return Step(
        p.CLIENT,
        number=rng.randrange(len(p.FRONTENDS)),
        client=rng.randrange(len(p.CLIENTS)),
        port=rng.randint(50_000, 50_003),
        name=rng.choice(("answer", "reset", "silent")),
    )
