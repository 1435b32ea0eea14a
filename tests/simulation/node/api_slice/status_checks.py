"""What must hold of what a source says of itself: whether it is current, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from userspace_proxy.sources.kubernetes import KubernetesSource

from ..api_exchange import Exchange
from ..api_requests import target_of
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
        if follower is None or follower.cuts > 1:
            return
        resource = target_of(exchange.path).resource
        shown = [line for line in self._source.status().problems if _BREAK_OFF in line]
        is_shown = any(f"watches of {resource} " in line for line in shown)
        self._judgements.check("one cut", not is_shown, lambda: f"a cut is shown: {shown}")

    def _check_deadlines(self) -> None:
        """Judge that no list lasts for longer than it may."""
        for follower in self._requests.followers.values():
            exchange = follower.last
            if exchange is None or follower.is_watch or follower.is_over:
                continue
            if not exchange.is_closed:
                lasts = self._world.now - follower.list_began
                is_right = lasts <= self._world.plan.list_s + _SOON_S
                self._judgements.check("deadline of a list", is_right, f"it lasts {lasts:.1f} s")

    def _check_silence(self) -> None:
        plan, client = self._world.plan, self._world.client
        assert client is not None, "there is a client"
        for exchange in client.exchanges:
            if "watch" not in exchange.query or not exchange.code:
                continue
            asked_s = float(exchange.query["timeoutSeconds"]) + 1 + 30.0
            quiet = self._world.now - self._checks.heard.get(exchange, exchange.began)
            bound = max(plan.silence_s, asked_s)
            self._judgements.check("silence", quiet <= bound + _SOON_S, said("for", quiet, "s"))

    def check_end(self) -> None:
        """Check what it says once nothing is broken any more."""
        status = self._source.status()
        lines = {item.line for item in status.rejected}
        others = [line for line in status.problems if line not in lines]
        self._judgements.check(
            "current",
            status.is_current and not others,
            lambda: f"is_current is {status.is_current}: {others}",
        )
        self._check_rejected(status)

    def _check_rejected(self, status: Any) -> None:
        if "shares" in self._world.plan.features:
            return
        listed = [item for item in status.rejected if item.kind]
        if self._checks.blind:
            self._judgements.excuse("rejected", "history went back, and on")
        seen = [kind for kind in KINDS if kind not in self._checks.blind]
        named = {(item.kind, item.namespace, item.name) for item in listed if item.kind in seen}
        right = {
            tuple(key) for kind in seen for key in self._checks.histories[kind].states[-1].loose
        }
        is_right = named == right and len(listed) <= _LISTED_MAX
        if len(listed) == _LISTED_MAX:
            is_right = named <= right
            if len(right) > _LISTED_MAX and not self._checks.blind:
                more = f"… and {len(right) - _LISTED_MAX} more"
                is_right = is_right and status.rejected[-1].line.startswith(more)
        self._judgements.check("rejected", is_right, lambda: f"{named}, not {right}")
