"""What must hold of what a source publishes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

from userspace_proxy.cluster import Snapshot
from userspace_proxy.cluster.store import ServiceState
from userspace_proxy.model import ServiceKey
from userspace_proxy.sources.kubernetes import KubernetesSource

from ..api_client import SimulatedClient
from ..api_exchange import Exchange
from .copies import Copy
from .follower import Follower
from .node_lists import ORACLES as ORACLES_OF_NODE_LISTS
from .node_lists import NodeLists
from .plan import NODE
from .pods import expected_slices, is_derived, shown_slices
from .reading import HIDDEN, Item, Key, Reader, service_of, stamp_of, weight
from .requests import RequestChecks
from .restores import Restores
from .share_checks import LIMITED, check_shares, said
from .status_checks import StatusChecks
from .truth import KINDS, Contents, History

if TYPE_CHECKING:
    from .world import World

ORACLES = (
    "content",
    "equal",
    "one state",
    "not older",
    "first snapshot",
    "change",
    "same objects",
    "orphans",
    "from Pods",
    "order",
    "rejected",
    "copy",
    "up to date",
    "current now",
    "age",
    "problems",
    "restarts",
    "last state",
    "woken",
    "share",
    "left out",
    "room",
    "not current",
    "current",
    "silence",
    *ORACLES_OF_NODE_LISTS,
    "reason of a request",
    "position of a watch",
    "asked about history",
    "one cut",
    "deadline of a list",
    "list after expiry",
    "no list of any state",
    "Retry-After",
    "retried soon",
    "backoff",
    "at once",
    "rate",
    "content of an Event",
    "object of an Event",
    "Events apart",
    "Events denied",
    "Events of a series",
    "Events soon",
    "Events counted",
    "Events owed",
    "Events known",
    "Events of a namespace",
    "Events in turns",
)


class Checks:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.judgements = world.judgements
        self.histories = {kind: History() for kind in KINDS}
        self.others = History()
        """Of what the source doesn't read."""
        self.contents = Contents()
        self.items: dict[int, dict[str, Any]] = {}
        """By stamp."""
        self.heaviest: dict[Key, int] = defaultdict(int)
        """The most that a version of an object takes of a share, also one that can't be read."""
        self.floors: dict[Key, float] = {}
        """The newest stamp that was shown of each object; one more if it was shown as deleted."""
        self.restores = Restores()
        self.heard: dict[Exchange, float] = {}
        self.reader = Reader()
        self._source: KubernetesSource
        self._requests: RequestChecks
        self._resumed: Snapshot | None = None
        self._has_published = False
        self.node_lists: NodeLists
        self.status: StatusChecks

    def follow(
        self, source: KubernetesSource, client: SimulatedClient, resumed: Snapshot | None
    ) -> None:
        """Check what another run of a source does.

        Args:
            resumed: What an earlier run has published.
        """
        world, self._source = self.world, source
        self._requests = requests = RequestChecks(
            self.judgements,
            lambda: self.world.now,
            self._listed,
            has_pods=world.plan.from_pods,
            has_shares="shares" in self.world.plan.features,
            list_s=world.plan.list_s,
            line_bytes=world.plan.line_bytes,
            copies=lambda kind: self._copy(kind, resumed),
        )
        self._forget(resumed)
        self.node_lists = lists = NodeLists(
            self.judgements,
            lambda: self.world.now,
            None if resumed is None else resumed.node_addresses,
            is_wanted=world.wants_nodes,
        )
        self.status = StatusChecks(self, source, requests)

        def on_begin(exchange: Exchange) -> None:
            world.note(f"agent: {exchange.method} {exchange.path} {dict(exchange.query)}")
            requests.on_begin(exchange)
            if lists.is_of(exchange):
                lists.on_begin(exchange)
            self.status.check_cuts(exchange)
            world.recording.on_begin(exchange)

        def on_head(exchange: Exchange) -> None:
            world.note(f"server: {exchange.code} for {exchange.path}")
            self.heard[exchange] = world.now
            if kind := requests.on_head(exchange):
                follower = requests.followers[kind]
                self.restores.note_answer(follower, exchange, world.etcd.revision)

        def on_arrival(exchange: Exchange, piece: bytes) -> None:
            self.heard[exchange] = world.now
            requests.on_arrival(exchange, piece)
            lists.on_arrival(exchange, piece)

        def on_end(exchange: Exchange) -> None:
            world.note(f"server: over: {exchange.path} {exchange.error}")
            watch = requests.on_end(exchange)
            if watch is not None:
                # It is read from now on.
                self.heard[watch] = world.now
            lists.on_end(exchange)
            world.recording.on_end(exchange)

        client.on_begin, client.on_head = on_begin, on_head
        client.on_arrival, client.on_end = on_arrival, on_end

    def _forget(self, resumed: Snapshot | None) -> None:
        """Forget what another run has shown."""
        self._has_published, self._resumed = False, resumed
        self.heard.clear()
        self.floors.clear()
        for history in self.histories.values():
            history.at = 0

    def _copy(self, kind: str, resumed: Snapshot | None) -> Copy:
        """Return the copy of a run that begins with what is shown of an earlier one."""
        earlier = dict[Key, int]()
        if resumed is not None and kind != "Node":
            # Its Services, and their slices.
            found = self.reader.shown(Snapshot(resumed.services))
            earlier = {key: number for key, number, _ in found if key.kind == kind}
        return Copy(kind, self.items.__contains__, earlier)

    # -- the truth ---------------------------------------------------------------------------------

    def written(
        self, key: Key, stamp: int | None, item: dict[str, Any] | None, *, is_invalid: bool = False
    ) -> None:
        """Note a write."""
        if item is not None and key.kind in LIMITED:
            self.heaviest[key] = max(self.heaviest[key], weight(item))
        if stamp is not None and item is not None and not is_invalid:
            self.contents.add(key, stamp, item)
            self.items[stamp] = item
        history = self.histories[key.kind] if self._is_visible(key) else self.others
        revision = self.world.etcd.revision + 1
        history.add(key, stamp, revision, is_invalid=is_invalid)

    def is_there(self, key: Key) -> bool:
        """Return whether there is such an object."""
        history = self.histories[key.kind] if self._is_visible(key) else self.others
        return key in history.states[-1].stamps

    def _is_visible(self, key: Key) -> bool:
        if key.kind == "Node":
            return key.name == NODE and self.world.plan.with_node
        return self.world.plan.namespace in ("", key.namespace)

    def restoring(self) -> None:
        """Note that history goes back, before it does."""
        self.restores.begin(self.world.now, self._requests.followers)

    def restored(self, revision: int) -> None:
        """Begin the history anew, as it was at an earlier revision."""
        for history in (*self.histories.values(), self.others):
            history.go_back(revision)
        self.restores.complete(revision, self._requests.followers)

    def _listed(self, follower: Follower) -> None:
        """Note that a list is complete: perhaps the newest history is demanded again."""
        kind = follower.kind
        if self.restores.end(follower):
            self.histories[kind].at = 0
            self.floors = {k: n for k, n in self.floors.items() if k.kind != kind}

    # -- what is published -------------------------------------------------------------------------

    def published(self, before: Snapshot | None, snapshot: Snapshot) -> None:
        """Check a snapshot."""
        check = self.judgements.check
        found = self.reader.shown(snapshot)
        self._check_contents(found)
        self._check_orphans(snapshot)
        self.node_lists.check_shown(snapshot.node_addresses)
        if not self._has_published:
            self._check_first()
        self._has_published = True
        if before is None and self._resumed is not None:
            self._check_same_objects(self._resumed, snapshot)
        if before is not None:
            check("change", before != snapshot, "a snapshot that is equal to the one before")
            check(
                "change",
                before.revision < snapshot.revision,
                lambda: f"revision {snapshot.revision} after {before.revision}",
            )
            self._check_same_objects(before, snapshot)
        for kind in self.world.plan.shown_kinds:
            of_kind = {k: n for k, n, _ in found if k.kind == kind}
            self._check_copy(kind, of_kind)
            self._check_state(kind, of_kind)

    def _check_copy(self, kind: str, found: dict[Key, int]) -> None:
        copy = self._requests.followers[kind].copy
        self.judgements.check(
            "copy",
            copy.accept(found, may_lack=self.may_lack(kind)),
            lambda: f"{kind}: {_text(found)}, and what has arrived is {_text(copy.now.shown)}",
        )

    def may_lack(self, kind: str) -> bool:
        """Return whether a part of the objects of a kind may be left out."""
        return kind != "Node" and self.world.plan.share_bytes < 1 << 20

    def _check_contents(self, found: list[Item]) -> None:
        for key, number, content in found:
            if key.kind == "EndpointSlice" and (number == HIDDEN or self.world.plan.from_pods):
                continue
            right = self.contents.of(key, number)
            self.judgements.check(
                "content",
                content == right,
                said(key, content, "not", right),
            )

    def check_pods(self, snapshot: Snapshot, stamps: Mapping[Key, int], unread: Set[Key]) -> None:
        """Check the endpoints that follow from Pods.

        Args:
            stamps: The newest ones.
            unread: Services that can't be read; what an earlier run has made of them stays.
        """
        earlier = {} if self._resumed is None else self._resumed.services
        pods = defaultdict[str, list[dict[str, Any]]](list)
        for key, number in stamps.items():
            pods[key.namespace].append(self.items[number])
        for of, state in snapshot.services.items():
            service = self.items.get(stamp_of(state.service))
            if service is None or not is_derived(service):
                self._check_written(of, state)
                continue
            right, found = expected_slices(service, pods[of.namespace]), shown_slices(state)
            stays = Key("Service", *of) in unread and of in earlier
            is_right = found == right or (stays and found == shown_slices(earlier[of]))
            self.judgements.check("from Pods", is_right, said(of, found, "not", right))

    def _check_written(self, of: ServiceKey, state: ServiceState) -> None:
        """Check the endpoints of a Service that aren't derived from Pods."""
        follower = self._requests.followers["EndpointSlice"]
        if follower.asks or follower.open_watch is None or not follower.copy.is_exact:
            return
        copy = follower.copy.now
        right = {
            key.name
            for key, number in copy.shown.items()
            if number != HIDDEN and (key.namespace, service_of(self.items[number])) == of
        }
        unsure = {key.name for key in (*copy.unread, *copy.open) if key.namespace == of.namespace}
        found = {item.key.name for item in state.slices}
        is_right = found - unsure == right - unsure
        self.judgements.check("from Pods", is_right, said(of, found, "not", right))

    def _check_orphans(self, snapshot: Snapshot) -> None:
        both = [key for key in snapshot.orphans if key in snapshot.services]
        self.judgements.check("orphans", not both, lambda: f"{both} exist")

    def _check_first(self) -> None:
        required = self.world.plan.kinds
        followers = self._requests.followers
        missing = [k for k in required if not followers[k].has_listed]
        # Without permission to read the Node, Services are served.
        if missing == ["Node"]:
            missing = [] if followers["Node"].was_forbidden else missing
        # The end of a list arrives before it is read.
        self.judgements.check(
            "first snapshot",
            all(self._has_all(followers[k]) for k in missing),
            lambda: f"before {missing} were listed",
        )

    def _has_all(self, follower: Follower) -> bool:
        request = follower.request
        return request is not None and request.is_whole_list

    def _check_same_objects(self, before: Snapshot, snapshot: Snapshot) -> None:
        for key, state in snapshot.services.items():
            old = before.services.get(key)
            if old is not state:
                names = [item.key for item in state.slices]
                self.judgements.check("order", names == sorted(names), said(key, "has", names))
            if old is not None and old is not state:
                self.judgements.check(
                    "same objects", old != state, said(key, "is equal, and another")
                )

    def _check_state(self, kind: str, found: dict[Key, int]) -> None:
        judgements = self.judgements
        if kind in self.restores.pending:
            # History went back; "copy" judges what is shown.
            return
        history, follower = self.histories[kind], self._requests.followers[kind]
        self._check_not_older(kind, found, history)
        if follower.is_mixed:
            # A list is under way; likewise.
            return
        judgements.check(
            "one state",
            history.find(found, self._ignored(kind)),
            lambda: (
                f"{kind}: {_text(found)} is no state since {history.at}: "
                f"{_text(history.states[history.at].stamps)}"
            ),
        )

    def _ignored(self, kind: str) -> Set[Key]:
        """Return the objects of which a part may be left out."""
        is_limited = "shares" in self.world.plan.features and self.may_lack(kind)
        return self.histories[kind].keys if is_limited else frozenset()

    def _check_not_older(self, kind: str, found: Mapping[Key, int], history: History) -> None:
        for key, number in found.items():
            if number == HIDDEN:
                continue
            floor = self.floors.get(key, 0)
            self.judgements.check(
                "not older",
                number >= floor,
                said(key, number, "after", floor),
            )
            self.floors[key] = max(floor, number)
        for key, floor in self.floors.items():
            if key.kind != kind or key in found:
                continue
            is_gone = key not in history.states[history.at].stamps
            if is_gone and floor == int(floor) and not self.may_lack(kind):
                self.floors[key] = floor + 0.5

    # -- at any time -------------------------------------------------------------------------------

    def look(self) -> None:
        """Check what the source says of itself, while something is broken."""
        self.status.look(has_published=self._has_published)
        self.node_lists.check()
        for follower in self._requests.followers.values():
            follower.check_question()

    # -- at the end --------------------------------------------------------------------------------

    @property
    def watches(self) -> list[Exchange | None]:
        """The open watches, of each kind; None: there is none."""
        return [follower.open_watch for follower in self._requests.followers.values()]

    def check_end(self, *, is_last: bool = False) -> None:
        """Check that what was published last is what is there.

        Args:
            is_last: Shortly after changes.
        """
        world, judgements = self.world, self.judgements
        snapshot, status = world.published, self._source.status()
        if snapshot is None:
            judgements.violate("equal", f"nothing was published: {status.problems}")
            return
        found = self.reader.shown(snapshot)
        for kind in world.plan.shown_kinds:
            self._check_equal(kind, {k: n for k, n, _ in found if k.kind == kind})
        if world.plan.from_pods and self.restores.blind.isdisjoint(("Service", "Pod")):
            pods, services = (self.histories[kind].states[-1] for kind in ("Pod", "Service"))
            self.check_pods(snapshot, pods.stamps, services.loose)
        self.node_lists.check()
        self.node_lists.check_shown(snapshot.node_addresses)
        self.status.check_end()
        if "shares" in world.plan.features:
            check_shares(self, found, status.rejected, is_last=is_last)

    def _check_equal(self, kind: str, found: dict[Key, int]) -> None:
        history = self.histories[kind]
        is_equal = history.fits_now(found, self._ignored(kind))
        if kind == "Node" and self.world.plan.denies_node:
            is_equal = not found
        if kind in self.restores.blind and not is_equal:
            self.judgements.excuse("equal", "history went back, and on")
            return
        self.judgements.check(
            "equal",
            is_equal,
            lambda: f"{kind}: {_text(found)}, not {_text(history.states[-1].stamps)}",
        )


def _text(stamps: Mapping[Key, int]) -> str:
    return ", ".join(f"{k.namespace}/{k.name}={n}" for k, n in sorted(stamps.items()))
