"""What clients may get, in each state of the cluster that may be in force at some moment."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from .claims import Claim, Dialled, Key, Kind, key_of
from .clients import Client
from .cluster import Floors, in_parts
from .truth import NO_SERVICE, Expected, Truth

if TYPE_CHECKING:
    from .world import World


class Moments(NamedTuple):
    """States of which one may be in force."""

    states: tuple[Truth, ...]
    recent: tuple[Truth, ...]
    """Those of what never waits for a turn, where something does."""


class Expecting:
    """What clients of one run may get."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[tuple[Moments, str, Dialled], Collection[Expected]] = {}

    def of(self, client: Client) -> Collection[Expected]:
        """Return what a client may get in each state that may be in force while it dials."""
        return self.at_moments(self.moments(client.floors), client.ip, client.at)

    def in_parts(self, client: Client) -> Collection[Expected]:
        """Return what it may also get where Services and slices are followed from the server.

        Cost: it has many more states, so ask only where it matters.
        """
        moments = self.moments(client.floors)
        if self._world.freshness.calm_at < client.floors.all:
            return self.at_moments(moments, client.ip, client.at)
        mixed = moments._replace(states=tuple(in_parts(moments.states)))
        return self.at_moments(mixed, client.ip, client.at)

    def has_changed(self, client: Client) -> bool:
        """Return whether what a client may get, or whose its address is, may have changed."""
        states = self.moments(client.floors).states
        claims = [truth.frontends.get(client.at) for truth in states]
        services = {id(claim.service) if claim is not None else 0 for claim in claims}
        found = {truth.expected(client.ip, client.at) for truth in states}
        return len(services) > 1 or len(found) > 1

    def have_moved(self, client: Client) -> bool:
        """Return whether any address may have another owner than before."""
        states = self.moments(client.floors).states
        owners = [{at: claim.kind for at, claim in truth.frontends.items()} for truth in states]
        return any(each != owners[0] for each in owners)

    def moments(self, floors: Floors) -> Moments:
        """Return the states that may be in force if all that is older than some times is."""
        cluster, now = self._world.cluster, self._world.timeline.now
        states = list(cluster.between(floors.all, now))
        if self._world.api.forbidden_until >= floors.all:
            # An agent that may not read its Node does without.
            states += [truth.without_node for truth in states]
        recent = cluster.between(floors.losses, now) if self._world.plan.endpoint_s else ()
        return Moments(tuple(states), tuple(recent))

    def at_moments(self, moments: Moments, ip: str, at: Dialled) -> Collection[Expected]:
        """Return what a client may get at some moments, without repetitions.

        States are asked again and again: all that they say of an address is kept.
        """
        key = moments, ip, at
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = dict.fromkeys(self._find_expected(moments, ip, at))
        return found

    def owners(self, moments: Moments, at: Dialled) -> Iterator[Claim | None]:
        """Yield what may own an address in one of some states; None: nothing does."""
        has_turns = bool(self._world.plan.endpoint_s)
        claims: dict[Kind | None, Claim | None] = {}
        for truth in moments.states:
            claim = truth.frontends.get(at)
            claims[claim.kind if claim is not None else None] = claim
            # While a Service waits for its turn, another one has what it will have.
            for other in truth.claims_at(at) if has_turns else ():
                claims.setdefault(other.kind, other)
        have = {claim.kind for truth in moments.recent for claim in truth.claims_at(at)}
        for claim in claims.values():
            is_left = has_turns and claim is not None and claim.kind not in have
            yield None if is_left else claim

    def _find_expected(self, moments: Moments, ip: str, at: Dialled) -> Iterator[Expected]:
        """Yield what a client may get in one of some states.

        Listeners follow before rules do: an address may lead to its owner of before, which has its
        new endpoints already. What a Service has no longer doesn't wait for its turn, and what
        another one has newly may: nothing is there meanwhile. An address that gets a policy of its
        own, be it with another Service, is at the port of the others until rules follow, and that
        one has their new policy.
        """
        states, recent = moments
        has_turns = bool(self._world.plan.endpoint_s)
        for claim in self.owners(moments, at):
            is_barred = has_turns and claim is not None and all(t.bars(claim, ip) for t in recent)
            for truth in states:
                found = truth.expected_of(claim, ip, at)
                yield found._replace(endpoints=frozenset()) if is_barred else found
            for side in claim.other_sides if claim and _changes_policy(claim, at, states) else ():
                for truth in states:
                    yield truth.expected_of(side, ip, at)
            if has_turns and is_made_anew(claim, states):
                # Until its turn, a Service with another address has what it had before, and none
                # of that is left.
                yield NO_SERVICE


def is_made_anew(claim: Claim | None, states: Sequence[Truth]) -> bool:
    """Return whether a Service has had several cluster IPs."""
    return claim is not None and len({s.get("clusterIP") for s in _specs(claim, states)}) > 1


def _changes_policy(claim: Claim, at: Dialled, states: Sequence[Truth]) -> bool:
    """Return whether a Service has had several policies, or source ranges for a while.

    Those from which it has an address count, too: it also takes over the port that this shared.
    """
    if len(states) < 2:
        return False
    owners = (truth.frontends.get(at) for truth in states)
    before = takewhile(lambda owner: owner is None or _key(owner) != _key(claim), owners)
    specs = [owner.service["spec"] for owner in before if owner is not None]
    names = "externalTrafficPolicy", "internalTrafficPolicy", "loadBalancerSourceRanges"
    found = [[spec.get(name) for name in names] for spec in (*specs, *_specs(claim, states))]
    return any(each != found[0] for each in found)


def _specs(claim: Claim, states: Sequence[Truth]) -> list[Mapping[str, Any]]:
    """Return what the Service of a claim was like."""
    key = _key(claim)
    return [truth.objects[key]["spec"] for truth in states if key in truth.objects]


def _key(claim: Claim) -> Key:
    return key_of(claim.service)
