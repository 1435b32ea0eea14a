"""The allowed outcomes of clients, in each state of the cluster that may be applied."""

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
    """The states of the cluster that may be applied."""

    states: tuple[Truth, ...]
    recent: tuple[Truth, ...]
    """The states for changes that never wait for a turn, if any do."""


class Expecting:
    """The allowed outcomes of the clients of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[tuple[Moments, str, Dialled], Collection[Expected]] = {}

    def of(self, client: Client) -> Collection[Expected]:
        """Return the allowed outcomes in each state that may be applied while a client dials."""
        return self.at_moments(self.moments(client.floors), client.ip, client.at)

    def in_parts(self, client: Client) -> Collection[Expected]:
        """Return the allowed outcomes, also of states with Services and slices of different times.

        Cost: there are many more states, so call it only where it matters.
        """
        moments = self.moments(client.floors)
        mixed = moments._replace(states=tuple(in_parts(moments.states)))
        return self.at_moments(mixed, client.ip, client.at)

    def has_changed(self, client: Client) -> bool:
        """Return whether a client's outcome or the owner of its address may have changed."""
        states = self.moments(client.floors).states
        claims = [truth.frontends.get(client.at) for truth in states]
        services = {id(claim.service) if claim is not None else 0 for claim in claims}
        found = {truth.expected(client.ip, client.at) for truth in states}
        return len(services) > 1 or len(found) > 1

    def have_moved(self, client: Client) -> bool:
        """Return whether any address may be new or removed, or at another Service port or side."""
        states = self.moments(client.floors).states
        owners = [{at: claim.kind for at, claim in truth.frontends.items()} for truth in states]
        return any(each != owners[0] for each in owners)

    def moments(self, floors: Floors) -> Moments:
        """Return the states that may be applied if all changes up to these times are applied."""
        cluster, now = self._world.cluster, self._world.timeline.now
        states = list(cluster.between(floors.all, now))
        if self._world.api.forbidden_until >= floors.all:
            # An agent that isn't allowed to read its Node serves without it.
            states += [truth.without_node for truth in states]
        recent = cluster.between(floors.losses, now) if self._world.plan.endpoint_s else ()
        return Moments(tuple(states), tuple(recent))

    def at_moments(self, moments: Moments, ip: str, at: Dialled) -> Collection[Expected]:
        """Return the distinct outcomes that a client may have.

        They are cached by address, because the same states are queried repeatedly.
        """
        key = moments, ip, at
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = dict.fromkeys(self._find_expected(moments, ip, at))
        return found

    def owners(self, moments: Moments, at: Dialled) -> Iterator[Claim | None]:
        """Yield the possible owners of an address in these states; None if it may have no owner."""
        has_turns = bool(self._world.plan.endpoint_s)
        claims: dict[Kind | None, Claim | None] = {}
        for truth in moments.states:
            claim = truth.frontends.get(at)
            claims[claim.kind if claim is not None else None] = claim
            # While a Service waits for its turn, another one may have the address that it will get.
            for other in truth.claims_at(at) if has_turns else ():
                claims.setdefault(other.kind, other)
        have = {claim.kind for truth in moments.recent for claim in truth.claims_at(at)}
        for claim in claims.values():
            is_left = has_turns and claim is not None and claim.kind not in have
            yield None if is_left else claim

    def _find_expected(self, moments: Moments, ip: str, at: Dialled) -> Iterator[Expected]:
        """Yield the outcomes that a client may have in these states.

        Listeners are updated before rules: an address may lead to its former owner, which already
        has its own new endpoints. Removing an address doesn't wait for a turn, but adding it to
        another Service may: the address has no owner in between. An address that gets its own
        policy, possibly in another Service, shares the port of the other addresses until rules are
        updated, although that port already has their new policy.
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
                # A recreated Service isn't served before its turn, although its old address is
                # already gone.
                yield NO_SERVICE


def is_made_anew(claim: Claim | None, states: Sequence[Truth]) -> bool:
    """Return whether the Service of a claim has had several cluster IPs."""
    return claim is not None and len({s.get("clusterIP") for s in _specs(claim, states)}) > 1


def _changes_policy(claim: Claim, at: Dialled, states: Sequence[Truth]) -> bool:
    """Return whether a Service's policies or source ranges have changed.

    The address's former owners count, too: the Service may take over their shared port.
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
    """Return the specs that the Service of a claim has had."""
    key = _key(claim)
    return [truth.objects[key]["spec"] for truth in states if key in truth.objects]


def _key(claim: Claim) -> Key:
    return key_of(claim.service)
