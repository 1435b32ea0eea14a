"""Draws situations that need several steps in their order, which chance hardly ever draws."""

from __future__ import annotations

from typing import Any

from .draft import Draft
from .objects import Objects
from .plan import CROWDED, NODE
from .wrong_answers import LINES, LISTS


class RareSituations:
    """Those of one plan."""

    def __init__(self, draft: Draft, objects: Objects) -> None:
        self.draft = draft
        self.objects = objects

    def draw_rarest_ones(self) -> None:
        """Draw what needs several servers, or several requests, that fit together.

        History that goes back where the question about it is denied by another server; Events that
        are written though the server says that they aren't, or denied in both namespaces; lists of
        all Nodes that are denied, with one between them that isn't.
        """
        rng = self.draft.rng
        has_two = self.draft.has("two-servers") and not self.draft.has("shares")
        if has_two and rng.random() < 0.15:
            self._go_back_denied()
        if self.draft.has("events") and rng.random() < 0.2:
            self._write_refused_events()
        # Later, what is owed isn't sent before the end.
        if self.draft.has("events") and self.draft.chaos_s > 600.0 and rng.random() < 0.5:
            self._deny_events()
        if self.draft.has("nodes") and self.draft.chaos_s > 600.0 and rng.random() < 0.7:
            self._deny_nodes_again()

    def draw_more_rare_ones(self) -> None:
        """Draw what only a look long after it shows.

        A full namespace in which there is room for all again, which a watch shows; this Node's
        object that is denied at first, and then can't be read for another reason; answers that the
        API doesn't allow.
        """
        rng = self.draft.rng
        if self.draft.has("shares") and rng.random() < 0.5:
            self._make_room()
        if rng.random() < 0.08:
            self._deny_this_node_first()
        if self.draft.has("events") and self.draft.chaos_s > 600.0 and rng.random() < 0.5:
            self._outlast_series()
        if rng.random() < 0.15:
            for _ in range(rng.choice((1, 1, 3))):
                self._answer_wrongly(rng.uniform(0.0, self.draft.chaos_s))

    def draw_old_events(self) -> None:
        """Have watches begin with events that are older than what was seen."""
        rng = self.draft.rng
        if rng.random() >= 0.06:
            return
        for _ in range(rng.choice((1, 2, 4))):
            at = rng.uniform(0.0, self.draft.chaos_s)
            resource = rng.choice(("services", "endpointslices", "nodes"))
            back, is_deleted = rng.choice((1, 1, 3, 900)), rng.random() < 0.7
            self.draft.step(at, "old-event", resource, back, is_deleted)
            for server in (0, 1):
                self.draft.step(at, rng.choice(("cut", "end", "end")), server)

    def draw_rejected_events(self) -> None:
        """Have Events be refused for good, and happen again, soon or once their time has come."""
        rng = self.draft.rng
        if not self.draft.has("events") or rng.random() >= 0.2:
            return
        at, is_slow = rng.uniform(0.0, self.draft.chaos_s), rng.random() < 0.4
        for server in (0, 1):
            if is_slow:
                # It happens again before the answer.
                self.draft.step(at, "slow", server, 5.0, 1.0)
            code = rng.choice((400, 404, 413, 422))
            self.draft.step(at, "refuse", server, code, rng.choice((2.0, 70.0)), "events", 0)
        for reason in range(40, 43):
            number = rng.randrange(4)
            self.draft.step(at + rng.choice((-2.0, 0.01)), "happen", reason, number)
            for _ in range(rng.choice((0, 1, 3))):
                self.draft.step(at + rng.choice((0.3, 3.0, 65.0, 90.0)), "happen", reason, number)

    def _make_room(self) -> None:
        """Fill a namespace; then have most of that deleted, and what was left out changed."""
        rng = self.draft.rng
        kind = rng.choice(("Service", "EndpointSlice"))
        at = rng.uniform(0.0, 0.8) * self.draft.chaos_s
        items: dict[str, dict[str, Any]] = {}
        while len(items) < 9:
            item = self.objects.item()
            metadata = item["metadata"]
            is_of_kind = item["kind"] == kind and metadata["namespace"] == CROWDED
            if is_of_kind and "is-invalid" not in item:
                items[metadata["name"]] = item
                self.draft.put(at, item)
        at += rng.choice((0.01, 1.0))
        names = list(items)
        # What came first is kept, so the others are left out.
        for name in names[:-2]:
            self.draft.step(at, "delete", kind, CROWDED, name)
        at += rng.choice((0.0, 0.01, 1.0))
        for name in names[-2:]:
            self.draft.put(at, items[name])

    def _outlast_series(self) -> None:
        """Have Events be unavailable until their series have ended, and happen again soon after."""
        rng = self.draft.rng
        at, number = rng.uniform(0.0, 200.0), rng.randrange(4)
        for server in (0, 1):
            self.draft.step(at, "refuse", server, 503, 350.0, "events", 0)
        # It is tried once a minute.
        is_crowded, last_s = rng.random() < 0.5, 415.0
        if is_crowded:
            last_s = 370.0
        for reason in range(30, 34):
            self.draft.step(at + 0.1, "happen", reason, number)
            self.draft.step(at + rng.uniform(362.0, last_s), "happen", reason, number)
        for reason in range(100, 160) if is_crowded else ():
            # More than there are places.
            self.draft.step(at + last_s + 1.0, "happen", reason, number)

    def _answer_wrongly(self, at: float) -> None:
        """Have a watch be sent what isn't the API's, or a list be answered by it."""
        rng, server = self.draft.rng, self.draft.rng.randrange(2)
        resource = rng.choice(("services", "endpointslices"))
        if rng.random() < 0.6:
            kind = {"services": "Service", "endpointslices": "EndpointSlice"}[resource]
            which = rng.choice(("error", "error", "long", *LINES))
            for _ in range(rng.choice((1, 1, 3))):
                if rng.random() < 0.5:
                    # Perhaps it arrives together with an event.
                    self._put_of(kind, min(at, self.draft.chaos_s))
                self.draft.step(at, "wrong-line", server, resource, which)
                at += rng.choice((0.001, 3.0, 8.0))
        else:
            for _ in range(rng.choice((1, 3))):
                self.draft.step(at, "wrong-list", server, resource, rng.choice(list(LISTS)))
                at += rng.choice((0.0, 4.0))
                # So that there is a list.
                self.draft.step(at, "touch")
                self.draft.step(at, "compact")
                self.draft.step(at, "end", server)

    def _deny_this_node_first(self) -> None:
        """Have Nodes denied at a start, and then be unavailable, while other objects change."""
        rng = self.draft.rng
        is_first = rng.random() < 0.5
        at = 0.0 if is_first else rng.uniform(0.0, 0.5) * self.draft.chaos_s
        for server in (0, 1):
            self.draft.step(at, "refuse", server, 403, 3.0, "nodes", 0)
        if not is_first:
            self.draft.step(at, "agent-restart", rng.random() < 0.7)
        later = at + 2.9
        if rng.random() < 0.4:
            # It is read between them.
            later += 15.0
            self.draft.step(later, "cut", 0)
            self.draft.step(later, "cut", 1)
        for server in (0, 1):
            self.draft.step(later, "refuse", server, rng.choice((500, 503)), 60.0, "nodes", 0)
        for _ in range(rng.choice((1, 3))):
            kind = rng.choice(("Service", "EndpointSlice"))
            self._put_of(kind, min(at + rng.uniform(10.0, 20.0), self.draft.chaos_s))

    def _go_back_denied(self) -> None:
        """Have history go back, and one server deny to say so, while the other has the watch."""
        rng = self.draft.rng
        at = rng.uniform(0.3, 0.8) * self.draft.chaos_s
        resource, kind = rng.choice((("services", "Service"), ("endpointslices", "EndpointSlice")))
        for _ in range(6):
            self._put_of(kind, at - 1.0)
        self.draft.features.add("tells-from-now")
        self.draft.features.add("restore")
        self.draft.step(at, "restore", rng.choice((4, 8)), 0.0)
        self.draft.step(at, "refuse", 0, rng.choice((403, 404)), 30.0, resource, 0)
        for _ in range(4):
            at += rng.choice((1.0, 5.0, 10.0))
            self._put_of(kind, min(at, self.draft.chaos_s))

    def _put_of(self, kind: str, at: float) -> None:
        item = self.objects.item()
        while item["kind"] != kind:
            item = self.objects.item()
        self.draft.put(at, item)

    def _write_refused_events(self) -> None:
        """Have new Events be written though the answer is an error, and happen again meanwhile."""
        rng = self.draft.rng
        at = rng.uniform(0.0, self.draft.chaos_s)
        for server in (0, 1):
            self.draft.step(at, "refuse", server, rng.choice((500, 503)), 2.0, "events", 0)
        for reason in range(10, 14):
            number = rng.randrange(4)
            self.draft.step(at + 0.01, "happen", reason, number)
            for _ in range(rng.choice((1, 3))):
                self.draft.step(at + rng.choice((3.0, 20.0, 50.0)), "happen", reason, number)

    def _deny_events(self) -> None:
        """Have Events be denied in both namespaces, which have more of them soon after."""
        rng = self.draft.rng
        at = rng.uniform(0.0, 30.0)
        for server in (0, 1):
            self.draft.step(at, "refuse", server, rng.choice((401, 403)), 3.0, "events", 0)
        numbers = [0, 3]
        rng.shuffle(numbers)
        for reason in (20, 21):
            for number in numbers:
                self.draft.step(at + 0.01, "happen", reason, number)
                # What is owed then was for longer than a series lasts.
                self.draft.step(at + 420.0, "happen", reason, number)
            at += rng.choice((4.0, 30.0))

    def _deny_nodes_again(self) -> None:
        """Have a list of all Nodes denied, the next one not, and the one after that denied."""
        at = self.draft.rng.uniform(0.0, 300.0)
        self.draft.step(at, "want-nodes", True)
        self.draft.step(at, "agent-restart", True)
        for server in (0, 1):
            self.draft.step(at, "refuse", server, 403, 9.0, "nodes", 0)
            # Lists are 300 s apart.
            self.draft.step(at + 305.0, "refuse", server, 403, 9.0, "nodes", 0)

    def draw_rarer_ones(self) -> None:
        """Draw what fills a bound, or meets another rare state; of its own as well.

        Lists of all Nodes that are denied, or expire between two pages; more kinds of Events than
        are kept, also while one of another namespace waits; a Node that is deleted and made again;
        an agent that begins with its last state, and ends before it has another one; more objects
        that can't be read than are listed; lists that end early; answers to new Events that are
        lost; a server that denies what another one permits.
        """
        rng = self.draft.rng
        if self.draft.has("events") and rng.random() < 0.3:
            self._crowd_events()
        if rng.random() < 0.1:
            self._make_node_again()
        if self.draft.has("nodes") and rng.random() < 0.6:
            rng.choice((self._expire_nodes, self._deny_nodes))()
        if rng.random() < 0.08:
            at = self.draft.moment()
            self.draft.step(at, "silence", 0, rng.choice((2.0, 20.0, 60.0)))
            self.draft.step(at, "silence", 1, rng.choice((2.0, 20.0, 60.0)))
            for _ in range(rng.choice((2, 2, 3))):
                at += rng.choice((0.01, 1.0, 10.0)) * rng.random()
                self.draft.step(at, "agent-restart", True)
        if self.draft.has("events") and rng.random() < 0.2:
            self._lose_answers()
        if self.draft.has("two-servers") and self.draft.has("short-watches") and rng.random() < 0.5:
            self._deny_by_one()
        if self.draft.has("invalid") and rng.random() < 0.2:
            self._spoil_many(rng.uniform(0.0, self.draft.chaos_s))
        if rng.random() < 0.1:
            self._end_list_early(rng.uniform(0.0, self.draft.chaos_s), rng.randrange(2))

    def _crowd_events(self) -> None:
        rng = self.draft.rng
        at = rng.uniform(0.0, self.draft.chaos_s)
        for _ in range(rng.choice((1, 1, 2))):
            is_node = rng.random() < 0.3
            reasons = list(range(rng.choice((40, 60, 60, 120))))
            rng.shuffle(reasons)
            for reason in reasons:
                self.draft.step(at, "happen", reason, 3 if is_node else rng.randrange(3))
                at += rng.choice((0.0, 0.0, 0.1)) * rng.random()
            # The other one's has its turn nevertheless.
            other = rng.randrange(3) if is_node else 3
            self.draft.step(at + 2.0 * rng.random(), "happen", rng.randrange(200, 203), other)
            at += rng.choice((1.0, 30.0, 70.0))
            for _ in range(rng.choice((0, 3, 10))):
                number = 3 if is_node else rng.randrange(3)
                self.draft.step(at, "happen", rng.randrange(130), number)

    def _make_node_again(self) -> None:
        """Have this node's object deleted and made again, perhaps unseen by the watch."""
        rng = self.draft.rng
        at = rng.uniform(0.0, self.draft.chaos_s)
        is_cut, server = rng.random() < 0.5, rng.randrange(2)
        self.draft.put(at, self.objects.node({"name": NODE}))
        for _ in range(rng.choice((1, 1, 3))):
            at += rng.choice((0.0, 0.01, 3.0)) * rng.random()
            if is_cut:
                self.draft.step(at, rng.choice(("cut", "end")), server)
            self.draft.step(at, "delete", "Node", "", NODE)
            at += rng.choice((0.0, 0.01, 3.0, 20.0)) * rng.random()
            if is_cut and rng.random() < 0.5:
                # The list has what the watch would have had.
                self.draft.step(at, "touch")
                self.draft.step(at, "compact")
            if rng.random() < 0.8:
                item = self.objects.node({"name": NODE})
                self.draft.put(min(at, self.draft.chaos_s), item)

    def _expire_nodes(self) -> None:
        """Have a list of all Nodes expire between its pages; some are deleted meanwhile."""
        rng = self.draft.rng
        at, server = rng.uniform(0.0, self.draft.chaos_s), rng.randrange(2)
        for name in (NODE, "bob", "carol", "dave", "erin"):
            self.draft.put(at, self.objects.node({"name": name}))
        at += 0.01
        self.draft.step(at, "want-nodes", True)
        self.draft.step(at, "slow", server, 3.0, 0.3)
        self.draft.step(
            at, "cut-answer", server, 0, "nodes", False, rng.choice((1, 2, 3, 3, 4)), True
        )
        self.draft.step(at, "agent-restart", rng.random() < 0.7)
        self.draft.step(
            at + rng.uniform(0.1, 1.0), "delete", "Node", "", rng.choice(("bob", "erin"))
        )

    def _deny_nodes(self) -> None:
        """Have some lists of all Nodes denied, or fail, after a start with known addresses."""
        rng = self.draft.rng
        at = rng.uniform(1.0, self.draft.chaos_s)
        self.draft.step(at, "agent-restart", True)
        for code in rng.choice(((403,), (403, 403), (403, 503, 403), (503, 403))):
            for server in (0, 1):
                self.draft.step(at, "refuse", server, code, 9.0, "nodes", 0)
            # The next list is tried then.
            at += 10.0

    def _lose_answers(self) -> None:
        """Have the answer to a new Event be lost, while it happens again."""
        rng = self.draft.rng
        at, reason, number = (
            rng.uniform(0.0, self.draft.chaos_s),
            rng.randrange(3),
            rng.randrange(4),
        )
        for server in (0, 1):
            self.draft.step(at, "cut-answer", server, 0, "events", False, 0, False)
        for _ in range(rng.choice((2, 4))):
            self.draft.step(at, "happen", reason, number)
            at += rng.choice((0.5, 5.0, 20.0))

    def _deny_by_one(self) -> None:
        """Have one server deny what the other one permits, to which the watch may go."""
        rng = self.draft.rng
        at, code = rng.uniform(0.0, self.draft.chaos_s), rng.choice((401, 403, 404))
        self.draft.step(at, "refuse", 0, code, 15.0, rng.choice(("services", "endpointslices")), 0)
        for _ in range(rng.choice((2, 4))):
            self.draft.step(at, "cut", rng.randrange(2))
            at += rng.choice((1.0, 6.0))

    def _spoil_many(self, at: float) -> None:
        """Have more objects that can't be read than are listed."""
        for _ in range(self.draft.rng.choice((25, 40))):
            item = self.objects.item()
            if "is-invalid" not in item:
                self.objects.spoil(item)
            self.draft.put(at, item)

    def _end_list_early(self, at: float, server: int) -> None:
        """Have a list end within an item, as behind a proxy that hides why."""
        rng = self.draft.rng
        resource = rng.choice(("services", "endpointslices"))
        self.draft.step(at, "touch")
        self.draft.step(at, "compact")
        after = rng.choice((300, 900, 1500))
        self.draft.step(
            at, "cut-answer", server, after, resource, True, rng.choice((1, 2, 2)), False
        )
        self.draft.step(at, "end", server)

    def draw_rare_ones(self) -> None:
        """Draw what has to follow something else; of its own, so that other plans stay as before.

        Lists that expire between two pages, while what the first one had is deleted; Events that
        the server deletes; bursts of cuts, soon after each other and far apart.
        """
        rng = self.draft.rng
        if self.draft.has("pages") and rng.random() < 0.5:
            self._expire_lists()
        if self.draft.has("events") and rng.random() < 0.5:
            for _ in range(rng.choice((1, 3))):
                at = rng.uniform(0.3, 1.0) * self.draft.chaos_s
                self.draft.step(at, "happen", rng.randrange(3), rng.randrange(4))
                self.draft.step(at + 1.0, "forget-events")
                self.draft.step(at + 1.1, "happen", rng.randrange(3), rng.randrange(4))
        if rng.random() < 0.15:
            at = rng.uniform(0.0, self.draft.chaos_s)
            for _ in range(rng.choice((2, 3, 5))):
                self.draft.step(at, "cut", rng.randrange(2))
                at += rng.choice((0.5, 2.0, 8.0, 20.0)) * rng.random()

    def _expire_lists(self) -> None:
        rng = self.draft.rng
        for _ in range(rng.choice((1, 3))):
            at, server = rng.uniform(0.0, self.draft.chaos_s), rng.randrange(2)
            resource = rng.choice(("services", "endpointslices"))
            kind = {"services": "Service", "endpointslices": "EndpointSlice"}[resource]
            self.draft.step(at, "touch")
            self.draft.step(at, "compact")
            self.draft.step(at, "slow", server, 6.0, 0.5)
            # Its second page.
            self.draft.step(
                at, "cut-answer", server, 0, resource, False, rng.choice((2, 3, 3, 4)), True
            )
            self.draft.step(at, "end", server)
            for _ in range(rng.choice((3, 8))):
                _, namespace, name = self.objects.key(kind)
                self.draft.step(at + rng.uniform(0.5, 4.0), "delete", kind, namespace, name)
