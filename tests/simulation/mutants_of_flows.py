"""Mutants of UDP flows, and of what workers count for all clients: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "resumed-flow-is-idle-since-its-start": Mutant(
        "udp",
        "        self.table.use(flow, flow.sent_since)\n        if room is not None",
        "        if room is not None",
    ),
    "moved-flow-is-as-old-as-its-client": Mutant(
        "udp", "if flow.dialled_at <= begun_by:", "if flow.sent_since <= begun_by:"
    ),
    "descriptor-of-a-refused-flow-is-lost": Mutant(
        "udp",
        "        self.engine.descriptors.give_for_flow()\n        flow.sock = None",
        "        if makes_room:\n            self.engine.descriptors.give_for_flow()\n"
        "        flow.sock = None",
    ),
    "answered-pairs-stay": Mutant(
        "udp",
        "            if flow.has_answer:\n                client_dialer.answered_flows.remove",
        "            if flow.has_answer and not flow.is_ended:\n"
        "                client_dialer.answered_flows.remove",
    ),
    "answered-flow-is-sent-again": Mutant(
        "udp_flow",
        "        self.kept = None\n        self.first_byte_s",
        "        self.first_byte_s",
    ),
    "held-datagrams-have-the-first-hop-limit": Mutant(
        "udp",
        "        flow.hop_limit = hop_limit\n        if flow.sock is not None:\n",
        "        if flow.sock is not None:\n            flow.hop_limit = hop_limit\n",
    ),
    "flow-has-no-dialled-address": Mutant(
        "udp", "key = (address, local.key)", 'key = (address, b"")'
    ),
    "refusal-of-a-clients-address-ejects": Mutant(
        "udp",
        "may_be_client_specific=flow.is_preserved and failed.failure is not Failure.NO_HOST",
        "may_be_client_specific=False",
    ),
    "pins-of-flows-are-of-client-ports": Mutant(
        "udp",
        "                flow.address[0], now, tried",
        "                str(flow.address), now, tried",
    ),
    "flows-never-use-client-addresses": Mutant(
        "udp", "endpoint, now, may_preserve=may_preserve", "endpoint, now, may_preserve=False"
    ),
    "one-way-endpoint-stays-ejected": Mutant(
        "udp",
        "                self.group.outcomes.answered(flow.endpoint, now)\n        elif",
        "                pass\n        elif",
    ),
    "held-datagrams-have-no-bound-of-bytes": Mutant(
        "udp_flow",
        "if len(held) < _HELD_DATAGRAMS and size <= _HELD_BYTES:",
        "if len(held) < _HELD_DATAGRAMS:",
    ),
    "flows-that-wait-hold-fewer-datagrams": Mutant(
        "udp_flow", "_HELD_DATAGRAMS = 8", "_HELD_DATAGRAMS = 5"
    ),
    "one-port-twice-to-one-endpoint": Mutant(
        "client_address", "if endpoint not in known:", "if port not in known:"
    ),
    "second-endpoint-isnt-asked-for": Mutant(
        "udp",
        "                    self._all_flows.silent.add(flow, now)",
        "                    if not flow.tried:\n"
        "                        self._all_flows.silent.add(flow, now)",
    ),
    "exceeded-hop-limit-refuses": Mutant(
        "socket_options",
        "_EXCEEDED = {(_FROM_ICMP, 11), (_FROM_ICMP6, 3)}",
        "_EXCEEDED = {(_FROM_ICMP6, 3)}",
        package="kernel",
    ),
    "stalled-flow-never-recovers": Mutant(
        "udp_flow", "self._asked, self.is_stalled = 0, False", "self._asked = 0"
    ),
    "flow-that-waits-again-is-last": Mutant(
        "udp_flow", "room.wait(self, since, is_at_limit", "room.wait(self, None, is_at_limit"
    ),
    "return-elsewhere-wakes-no-client": Mutant(
        "outcomes",
        "        if self._balancers.current.answered(endpoint):\n"
        "            self._note_return(endpoint, now)\n\n    def has",
        "        self._balancers.current.answered(endpoint)\n\n    def has",
    ),
    "flows-to-those-that-leave-end-at-once": Mutant(
        "endpoint_group",
        "        self._end_flows(gone.difference(serving.leaving))\n",
        "        self._end_flows(gone)\n",
    ),
    "flows-to-those-that-leave-stay": Mutant(
        "removals", "            pair[0].end_flows_to(pair[1], begun_by=left.at)\n", ""
    ),
    "flows-to-those-that-have-left-stay": Mutant(
        "endpoint_group",
        "left.union(e for e in old.leaving if not self.balancers.serves_everyone(e))",
        "left",
    ),
}
