"""What must hold of what a source says of itself: whether it is current, and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from userspace_proxy.cluster import Snapshot
from userspace_proxy.sources import SourceStatus
from userspace_proxy.sources.kubernetes import KubernetesSource

from ..api_exchange import Exchange
from ..api_requests import target_of
from .copies import CopyState
from .follower import Follower
from .plan import NODE
from .requests import RequestChecks
from .share_checks import said
from .truth import KINDS

if TYPE_CHECKING:
    from .checks import Checks

# A watch that is reset, the longest wait, and a refused connection.
_SEEN_DOWN_S = 12.0
# The kernel's probes, connecting, the longest wait.
_SEEN_CUT_OFF_S = 92.0
_SOON_S = 1.0
_ANSWER_S = 75.0
_LOOKS = 4
"""What follows from all that has arrived is compared at one of so many looks: that costs more."""
_LISTED_MAX = 20
_BREAK_OFF = "break off at once"


class StatusChecks:
    """The oracles of one run of a source."""

    def __init__(self, checks: Checks, source: KubernetesSource, requests: RequestChecks) -> None:
        self._checks = checks
        self._world = checks.world
        self._judgements = checks.judgements
        self._source = source
        self._requests = requests
        self._began = self._world.now
        self._followers = [requests.followers[kind] for kind in self._world.plan.kinds]
        self._looks = 0
        self._looked_at: tuple[Snapshot, list[CopyState]] | None = None

    def look(self, *, has_published: bool) -> None:
        """Check what it says at any time, also while something is broken."""
        world = self._world
        status, now = self._source.status(), world.now
        self._judgements.check(
            "synced",
            status.is_synced == has_published,
            lambda: f"is_synced is {status.is_synced}",
        )
        cut_off = world.address.cut_off_until(NODE) > now
        # A first request may be under way for as long as connecting takes.
        began = max(world.cut_off_since, self._began)
        if cut_off and now - began > _SEEN_CUT_OFF_S:
            self._check_not_current(status, "cut off")
        elif not cut_off and now - max(world.down_since or now, self._began) > _SEEN_DOWN_S:
            self._check_not_current(status, "without a server")
        self._check_silence()
        self._check_deadlines()
        self._looks += 1
        if self._looks % _LOOKS == 0:
            self._check_outages(status)
            self._check_copies(status)
            world.recording.look()

    # -- what follows from all that has arrived ----------------------------------------------------

    def _check_outages(self, status: SourceStatus) -> None:
        """Judge whether it is current, and since when not."""
        now, check = self._world.now, self._judgements.check
        for follower in self._followers:
            if (by := follower.must_begin_by) is not None:
                check("woken", now <= by, said(follower.kind, "waits since", by))
            request = follower.request
            if request is not None and not request.is_watch and not request.is_over:
                follower.outage.note_list(follower.lists_since, now)
        if any(each.is_unsure or not each.outage.is_certain(now) for each in self._followers):
            return
        failing = [
            each.outage.since
            for each in self._followers
            if each.outage.since and not (each.kind == "Node" and each.outage.is_forbidden)
        ]
        lines = _lines(status)
        is_said = bool(lines) == any(each.outage.since for each in self._followers)
        check("problems", is_said, said(lines, "while", failing, "fail"))
        is_current = status.is_synced and not failing
        check("current now", status.is_current == is_current, said(status.is_current, failing))
        if not status.is_synced or not failing:
            check("age", status.behind_s == 0.0, said(status.behind_s, "and it is current"))
            return
        least, most = now - min(hi for _, hi in failing), now - min(lo for lo, _ in failing)
        check(
            "age",
            least - _SOON_S <= status.behind_s <= most + _SOON_S,
            said(status.behind_s, "not", least, "to", most),
        )

    def _check_copies(self, status: SourceStatus) -> None:
        """Judge that what has arrived some time ago is shown, and what of it can't be read."""
        snapshot, now = self._world.published, self._world.now
        quiet = [each for each in self._followers if self._is_quiet(each, now)]
        awaited = [each for each in self._followers if not self._does_without(each, now)]
        is_all_quiet = all(each in quiet for each in awaited)
        if snapshot is None:
            self._judgements.check("first snapshot", not is_all_quiet, "none, and all is listed")
            return
        states = [each.copy.now for each in quiet]
        if self._is_other(snapshot, states):
            self._looked_at = snapshot, states
            found = self._checks.reader.shown(snapshot)
            for each in quiet:
                if each.kind not in self._world.plan.shown_kinds:
                    continue
                of_kind = {key: number for key, number, _ in found if key.kind == each.kind}
                may_lack = self._checks.may_lack(each.kind)
                self._judgements.check(
                    "up to date",
                    each.copy.now.fits(of_kind, may_lack=may_lack),
                    said(each.kind, "shows", of_kind, "not", each.copy.now.shown),
                )
        if not is_all_quiet:
            return
        if self._world.plan.from_pods:
            pods, services = (
                self._requests.followers[kind].copy.now for kind in ("Pod", "Service")
            )
            self._checks.check_pods(snapshot, pods.shown, services.unread)
        restarts = sum(each.restarts for each in quiet)
        right = status.restarts == restarts
        self._judgements.check("restarts", right, said(status.restarts, "not", restarts))
        if "shares" in self._world.plan.features:
            self._check_left_out(snapshot, states, status)
        else:
            unread = {tuple(key) for state in states for key in state.unread}
            named = {(i.kind, i.namespace, i.name) for i in status.rejected if i.kind}
            is_right = named <= unread and len(named) == min(len(unread), _LISTED_MAX)
            self._judgements.check("rejected", is_right, said(named, "not", unread))

    def _check_left_out(
        self, snapshot: Snapshot, states: Sequence[CopyState], status: SourceStatus
    ) -> None:
        """Judge which namespaces are said to have too much."""
        if self._checks.restores.last_at is not None:
            # What is left out is only counted, by events; it may have been written again unseen.
            return
        found = {key for key, _, _ in self._checks.reader.shown(snapshot)}
        loose = {key for state in states for key in (*state.unread, *state.open)}
        missing = {key for state in states for key in state.shown} - found - loose
        least, unsure = (
            {f"namespace {key.namespace}" for key in keys} for keys in (missing, loose)
        )
        places = {item.place for item in status.rejected if item.place and not item.kind}
        is_right = least <= places <= least | unsure
        self._judgements.check("left out", is_right, said(places, "not", least, unsure))

    def _does_without(self, follower: Follower, now: float) -> bool:
        """Return whether nothing waits for a kind: for a Node that was never read, but denied."""
        outage = follower.outage
        is_denied = outage.is_forbidden and outage.is_certain(now) and not follower.is_unsure
        return follower.kind == "Node" and is_denied and not follower.has_listed

    def _is_other(self, snapshot: Snapshot, states: list[CopyState]) -> bool:
        """Return whether something of that differs from what was judged last."""
        if self._looked_at is None or self._looked_at[0] is not snapshot:
            return True
        before = self._looked_at[1]
        same = len(before) == len(states)
        return not same or any(a is not b for a, b in zip(before, states, strict=True))

    def _is_quiet(self, follower: Follower, now: float) -> bool:
        """Return whether all that has arrived was read, and there is one state to show."""
        watch = follower.open_watch
        if watch is None or watch.is_closed or follower.asks or not follower.copy.is_exact:
            return False
        return now - self._checks.heard.get(watch, now) > _SOON_S

    # -- single claims -----------------------------------------------------------------------------

    def _check_not_current(self, status: Any, why: str) -> None:
        client = self._world.client
        if client is not None and any(each.is_stalled for each in client.exchanges):
            self._judgements.excuse("not current", "a connection is silent")
            return
        names = any("api.example" in line for line in status.problems)
        self._judgements.check(
            "not current",
            not status.is_current and names,
            lambda: f"{why}, and is_current is {status.is_current}: {status.problems}",
        )

    def check_cuts(self, exchange: Exchange) -> None:
        """Judge that one watch that breaks off isn't a problem."""
        follower = self._requests.follower_of(exchange)
        if follower is None or max(follower.next.cuts, follower.next.cuts_before) > 1:
            return
        resource = target_of(exchange.path).resource
        shown = [line for line in self._source.status().problems if _BREAK_OFF in line]
        is_shown = any(f"watches of {resource} " in line for line in shown)
        self._judgements.check("one cut", not is_shown, lambda: f"a cut is shown: {shown}")

    def _check_deadlines(self) -> None:
        """Judge that no list lasts for longer than it may."""
        for follower in self._requests.followers.values():
            request = follower.request
            if request is None or request.is_watch or request.is_over:
                continue
            if not request.exchange.is_closed:
                lasts = self._world.now - follower.list_began
                is_right = lasts <= self._world.plan.list_s + _SOON_S
                self._judgements.check("deadline of a list", is_right, f"it lasts {lasts:.1f} s")

    def _check_silence(self) -> None:
        plan, client, now = self._world.plan, self._world.client, self._world.now
        assert client is not None, "there is a client"
        for exchange in client.exchanges:
            if "watch" not in exchange.query or not exchange.code:
                continue
            quiet = now - self._checks.heard.get(exchange, exchange.began)
            bound = plan.silence_s
            if quiet > bound:
                bound = max(bound, float(exchange.query["timeoutSeconds"]) + 1 + 30.0)
            if quiet > bound:
                follower = self._requests.follower_of(exchange)
                # It is read once the question about history is answered, or given up.
                bound += _ANSWER_S if follower is not None and follower.asks else 0.0
            self._judgements.check("silence", quiet <= bound + _SOON_S, said("for", quiet, "s"))

    def check_end(self) -> None:
        """Check what it says once nothing is broken any more."""
        status, plan = self._source.status(), self._world.plan
        others = _lines(status)
        # That this node's object may not be read stays a problem.
        is_said = [" nodes" in line for line in others] == [True] * plan.denies_node
        self._judgements.check(
            "current",
            status.is_current and (is_said if plan.with_node else not others),
            lambda: f"is_current is {status.is_current}: {others}",
        )
        self._check_rejected(status)

    def _check_rejected(self, status: Any) -> None:
        if "shares" in self._world.plan.features:
            return
        listed = [item for item in status.rejected if item.kind]
        if self._checks.restores.blind:
            self._judgements.excuse("rejected", "history went back, and on")
        hidden = {"Node"} if self._world.plan.denies_node else set[str]()
        seen = [kind for kind in KINDS if kind not in self._checks.restores.blind | hidden]
        named = {(item.kind, item.namespace, item.name) for item in listed if item.kind in seen}
        right = {
            tuple(key) for kind in seen for key in self._checks.histories[kind].states[-1].loose
        }
        is_right = named == right and len(listed) <= _LISTED_MAX
        if len(listed) == _LISTED_MAX:
            is_right = named <= right
            if len(right) > _LISTED_MAX and not self._checks.restores.blind:
                more = f"… and {len(right) - _LISTED_MAX} more"
                is_right = is_right and status.rejected[-1].line.startswith(more)
        self._judgements.check("rejected", is_right, lambda: f"{named}, not {right}")


def _lines(status: SourceStatus) -> list[str]:
    """Return what is wrong but for single objects."""
    of_objects = {item.line for item in status.rejected}
    return [line for line in status.problems if line not in of_objects]
