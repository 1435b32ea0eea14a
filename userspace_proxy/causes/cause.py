"""Defines causes: why clients of a Service aren't served, or why an endpoint isn't used.

    code, declared once: its traits, which depend only on the name
      └ row, declared once: words, remedies ──called with typed parameters──▶ Cause ──say──▶ text

Rule 1: a cause is a value: equal facts give equal causes. It contains no text: only ``say`` reads
the texts of a row.
Rule 2: a row is a function: it has the parameters of the cause, and its body returns the sentence.
Other texts are templates, or functions with the same parameters.
Rule 3: the time of the cause, whether other clients are answered, and an endpoint's PROXY header
are modifiers of a cause, not separate causes.
Rule 4: what is special about a code is stated in its traits, never in lists of codes elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Generic, ParamSpec, TypeAlias

_SLICES = "get endpointslices -n {namespace} -l kubernetes.io/service-name={name} -o yaml"
_SELECTOR = "edit service -n {namespace} {name}"

NEWER_MAX = 100
"""The maximum number of unknown codes that are distinguished in one answer."""
newer_codes: dict[str, CauseCode] = {}
"""The unknown codes of the answer being read; the reader clears them before the next answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """The properties of a cause's code; the defaults fit most causes.

    Commands contain placeholders: ``{namespace}`` and ``{name}`` of the Service, ``{pod}``.
    """

    is_of_endpoint: bool = False
    """Whether the cause is about an endpoint, so that a dial may show more."""
    is_of_now: bool = False
    """Whether the remedy inspects the current state."""
    is_dial: bool = False
    """Whether the cause makes dials fail, so that it is counted for each endpoint."""
    is_slow: bool = False
    """Whether dials with this cause fail only after a timeout."""
    serves: bool = False
    """Whether clients reach the endpoint anyway."""
    accepts: bool = False
    """Whether the endpoint accepts the connections that fail."""
    is_unanswered: bool = False
    """Whether clients leave without a byte: this is an observation, not a failure."""
    may_be_header: bool = False
    """Whether an unexpected PROXY header may cause the same behaviour."""
    is_of_address: bool = False
    """Whether some or all addresses of the Service port aren't served."""
    is_mistake: bool = False
    """Whether a setting of a user has no effect; other notes describe intended behaviour."""
    is_by_design: bool = False
    """Whether this proxy isn't meant to serve the Service or the address."""
    is_of_pods: bool = False
    """Whether the state of the pods shows more."""
    kubectl: str = ""
    """Arguments of the ``kubectl`` command that shows more. If empty for an endpoint, the command
    describes its pod, reads its log if it accepts connections, or gets slices that name no pod."""
    kubectl_of_pod: str = ""
    """The arguments to use instead if the pod's name is known."""
    on_node: str = ""
    """A command that shows more, to run on the node."""


_PLAIN = Traits()


class CauseCode(enum.StrEnum):
    """The names of causes in metrics, JSON and docs/troubleshooting.md; they never change."""

    traits: Traits

    def __new__(cls, value: str, traits: Traits = _PLAIN) -> CauseCode:
        code = str.__new__(cls, value)
        code._value_, code.traits = value, traits
        return code

    ENDPOINT_REFUSES = "endpoint-refuses", Traits(is_of_endpoint=True, is_dial=True)
    ENDPOINT_SILENT = (
        "endpoint-silent",
        Traits(is_of_endpoint=True, is_of_now=True, is_dial=True, is_slow=True),
    )
    ENDPOINT_UNREACHABLE = (
        "endpoint-unreachable",
        Traits(is_of_endpoint=True, is_of_now=True, is_dial=True),
    )
    ENDPOINT_NO_HOST = (
        "endpoint-no-host",
        Traits(is_of_endpoint=True, is_of_now=True, is_dial=True, is_slow=True),
    )
    """No host on the endpoint's link has the endpoint's address: ARP or neighbour discovery
    fails."""
    ENDPOINT_RESETS = (
        "endpoint-resets",
        Traits(is_of_endpoint=True, is_dial=True, accepts=True, may_be_header=True),
    )
    """The endpoint accepts connections and closes them without sending a byte."""
    ENDPOINT_SENDS_NOTHING = (
        "endpoint-sends-nothing",
        Traits(is_of_endpoint=True, accepts=True, is_unanswered=True, may_be_header=True),
    )
    """The endpoint accepts connections, and sends nothing until clients give up."""
    ENDPOINT_ANSWERS_LATE = (
        "endpoint-answers-late",
        Traits(is_of_endpoint=True, accepts=True, is_unanswered=True, may_be_header=True),
    )
    """The endpoint's first byte arrives after clients have given up."""
    ENDPOINT_DENIES = (
        "endpoint-denies",
        Traits(
            is_of_endpoint=True,
            serves=True,
            accepts=True,
            kubectl="get networkpolicies -n {namespace} -o yaml",
        ),
    )
    """The endpoint doesn't answer some clients, but answers this node or other clients."""
    ENDPOINT_CUTS_OFF = (
        "endpoint-cuts-off",
        Traits(is_of_endpoint=True, serves=True, accepts=True, may_be_header=True),
    )
    """The endpoint resets connections after it has sent bytes."""
    PACKETS_LOST = "packets-lost", Traits(accepts=True)
    """Packets to or from an endpoint, or to a client, are lost, mostly after the handshake."""
    ENDPOINT_FAILS = "endpoint-fails", Traits(is_of_endpoint=True, is_of_now=True, is_dial=True)
    """A dial failed with an error for which there is no other code."""
    ENDPOINT_NOT_ALLOWED = "endpoint-not-allowed", Traits(kubectl=_SLICES)
    """The endpoint's address, given or found by name, must not be dialled (CVE-2021-25737)."""
    NAME_NOT_ALLOWED = "name-not-allowed"
    """An endpoint's name isn't allowed, exceeds a limit, or might lead into the cluster."""
    NAME_UNRESOLVED = "name-unresolved"
    """DNS has no address for the name of an endpoint, or no longer has one."""
    NO_SLICE = "no-slice", Traits(is_of_pods=True, kubectl=_SLICES)
    SLICE_EMPTY = (
        "slice-empty",
        Traits(
            is_of_pods=True,
            kubectl="get pods -n {namespace} --show-labels",
            kubectl_of_pod=_SELECTOR,
        ),
    )
    SLICE_ELSEWHERE = (
        "slice-elsewhere",
        Traits(kubectl="get endpointslices -A -l kubernetes.io/service-name={name}"),
    )
    """A slice in another namespace refers to a Service of this name."""
    SLICE_ORPHANED = (
        "slice-orphaned",
        Traits(kubectl="get endpointslices -n {namespace} --show-labels"),
    )
    """A slice refers to a nonexistent Service with a similar name, or to no Service."""
    PORT_NAME_MISSING = (
        "port-name-missing",
        Traits(is_of_pods=True, kubectl=_SLICES, kubectl_of_pod=_SELECTOR),
    )
    NOT_READY = (
        "not-ready",
        Traits(
            is_of_pods=True,
            kubectl="describe pods -n {namespace}",
            kubectl_of_pod="describe pod -n {namespace} {pod}",
        ),
    )
    NOT_LOCAL = "not-local", Traits(kubectl="get pods -n {namespace} -o wide")
    NOT_FOR_THIS_NODE = "not-for-this-node", Traits(kubectl=_SLICES)
    """Topology hints send this node's clients to other endpoints."""
    SOURCE_DENIED = "source-denied"
    OTHER_PORT = "other-port"
    """Clients dial a port of a ClusterIP that its Service doesn't have."""
    NO_PROXY_HEADER = "no-proxy-header"
    """A client within ``--accept-proxy-protocol`` sends no PROXY header."""
    HOP_LIMIT = "hop-limit"
    """Clients' datagrams arrive with an exhausted hop limit (TTL)."""
    EXTERNAL_IP_OFF = "external-ip-off", Traits(is_of_address=True)
    ADDRESS_TAKEN = "address-taken", Traits(is_of_address=True, kubectl="get services -A -o wide")
    NOT_OURS = "not-ours", Traits(is_by_design=True)
    """By design, this proxy doesn't serve the Service or port."""
    NOT_FOLLOWED = "not-followed", Traits(is_mistake=True)
    """A field or annotation has no effect."""
    TOO_MANY_ENDPOINTS = "too-many-endpoints"
    TOO_MANY_FRONTENDS = "too-many-frontends"
    """A Service, or all Services of a namespace together, have too many ports and addresses."""
    NOT_LISTENING = "not-listening", Traits(on_node="ss -Hlntup")
    """A proxy port or node port can't be opened, or its frontend can't be steered to it."""
    FAULT_ON_PURPOSE = "fault-on-purpose", Traits(is_dial=True, serves=True, accepts=True)
    """A call, a toxiproxy client or an annotation injected a fault that is active."""
    OUT_OF_PORTS = "out-of-ports"
    OUT_OF_CLIENT_PORTS = "out-of-client-ports"
    FIREWALL_DROPS = "firewall-drops"
    AGENT_BEHIND = "agent-behind"
    """A node's plan lags behind the API server; reported by tools that read all nodes."""
    NODES_DIFFER = "nodes-differ"
    """A node differs from the others, or has an unexpected object; reported by tools that read all
    nodes."""
    SOURCE_AWAY = "source-away"
    """The API server or the manifests can't be read."""
    AGENT_MISSING = "agent-missing"
    """No proxy runs on a node, or it is restarted; reported by tools that read all nodes."""
    AGENT_UNREAD = "agent-unread"
    """The proxy of a node returns no readable answer."""

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        # Pickle the value: Python 3.11.2 looks up members by name, which fails for members created
        # by _missing_.
        return CauseCode, (str(self),)

    @classmethod
    def _missing_(cls, value: object) -> CauseCode:
        """Return a code that only newer proxies declare, as read from their JSON."""
        # Beyond NEWER_MAX unknown codes, which no proxy declares, only the sentences are kept.
        name = str(value) if value in newer_codes or len(newer_codes) < NEWER_MAX else ""
        code = newer_codes.get(name)
        if code is None:
            code = newer_codes[name] = str.__new__(cls, name)
            code._name_ = code._value_ = name
            code.traits = _PLAIN
        return code


_FAILS = CauseCode.ENDPOINT_FAILS
DIAL_CAUSES = (*(one for one in CauseCode if one.traits.is_dial and one is not _FAILS), _FAILS)
"""The causes of failed dials; the last code covers all other errors."""


Param: TypeAlias = str | int | float | bool | tuple[str, ...]
"""A parameter: anything that JSON can express, so that another process can read it."""
Text: TypeAlias = str | Callable[..., str]
"""A template that contains the names of parameters, or a function of the parameters; empty if there
is no text."""
P = ParamSpec("P")


class When(enum.StrEnum):
    """When a cause was seen."""

    NOW = "now"
    LAST_MINUTE = "last_minute"
    """Within the last minute; the endpoint may have answered since."""
    PAST = "past"
    """Longer ago; the endpoint hasn't been dialled since."""


class Parameters:
    """A function's parameters; :meth:`bound` also accepts keyword-only parameters by position."""

    __slots__ = ("_defaults", "_function", "_rest", "names")

    def __init__(self, function: Callable[..., str]) -> None:
        made, defaults = function.__code__, function.__defaults__ or ()
        last = made.co_argcount
        given = zip(made.co_varnames[last - len(defaults) : last], defaults, strict=True)
        self._function = function.__name__
        self.names = made.co_varnames[: last + made.co_kwonlyargcount]
        self._defaults = {**dict(given), **(function.__kwdefaults__ or {})}
        last_of = range(len(self.names) - len(self._defaults), len(self.names) + 1)
        values = tuple(self._defaults.values())
        # Don't precompute defaults if a keyword-only parameter has none: then the parameters with a
        # default aren't the last parameters.
        are_last = self.names[last_of[0] :] == tuple(self._defaults)
        self._rest = {n: values[n - last_of[0] :] for n in last_of} if are_last else {}
        """The defaults of the remaining parameters, by the number of given values."""

    def bound(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[object, ...]:
        """Return the values in the order of the parameters.

        Raises:
            TypeError: A value is missing, given twice, or has no parameter.
        """
        # Cost: a view of 10,000 Service ports calls this about 10,000 times, mostly without keyword
        # arguments.
        rest = None if kwargs else self._rest.get(len(args))
        if rest is not None:
            return (*args, *rest)
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        bound = {**self._defaults, **given}
        if len(given) != len(args) + len(kwargs) or bound.keys() != {*self.names}:
            raise TypeError(f"{self._function} takes {', '.join(self.names) or 'no parameters'}")
        return tuple([bound[name] for name in self.names])


@dataclass(frozen=True, eq=False)
class CauseRow(Generic[P]):
    """The declaration of one cause; calling it with parameters returns a :class:`Cause`."""

    code: CauseCode
    """The cause's name in metrics and docs; several rows may share it."""
    words: Callable[P, str]
    """The sentence, or its predicate if ``is_predicate``."""
    about: Text = ""
    """The object of the sentence."""
    is_predicate: bool = False
    """Whether the sentence begins with the object, so that ``words``, ``past`` and ``short`` omit
    it."""
    past: Text = ""
    """The sentence in the past tense; empty if it is the same sentence."""
    short: Text = ""
    """The sentence without suspected reasons; empty if it is the whole sentence."""
    hint: Text = ""
    """The remedy; empty if the sentence already contains it."""
    command: Text = ""
    """The remedy as arguments of ``kubectl``; empty if ``hint`` is used."""
    outside: Text = ""
    """The remedy if the endpoint isn't known to be a pod (``{host}``); empty to use ``hint``."""
    to_some_nodes: Text = ""
    """The remedy if the endpoint answers other nodes; empty to use ``hint``."""
    to_own_node: Text = ""
    """The remedy if the endpoint answers only its own node; empty to use ``to_some_nodes``."""
    at_times: Text = ""
    """The remedy if the endpoint answers other clients; empty to use the usual remedy."""
    at_times_outside: Text = ""
    """Like ``at_times``, for an endpoint that isn't known to be a pod."""
    is_of_slices: bool = False
    """Whether the cause is about a Service's slices, not its pods."""
    is_of_host: bool = False
    """Whether all endpoints on an unreachable host have this cause."""
    kubectl: str = ""
    """Arguments of the ``kubectl`` command that shows more; empty to use the code's arguments."""
    on_node: Text = ""
    """The command that shows more on the node, where the fault is; empty to use ``kubectl``."""
    on_way: str = ""
    """The command to use like ``on_node`` if the endpoint answers other nodes."""
    shared: Sequence[str] | None = None
    """The parameters that identify the cause across Services. If None, a cause about an endpoint is
    identified by the endpoint, and any other cause belongs to its Service."""
    name: str = ""
    """The key; empty to use the function's name."""

    @cached_property
    def key(self) -> str:
        """The unique name of the row."""
        return self.name or self.words.__name__

    @cached_property
    def _parameters(self) -> Parameters:
        return Parameters(self.words)

    @cached_property
    def places(self) -> Sequence[int] | None:
        """The positions of the identifying parameters; None if the cause belongs to its Service."""
        names = self._parameters.names
        if self.shared is not None:
            return [names.index(name) for name in self.shared]
        return [names.index("at")] if "at" in names else None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Cause:
        """Return the cause with these parameters; addresses and names of objects become text."""
        values = map(_plain, self._parameters.bound(args, kwargs))
        return Cause(self, tuple(zip(self._parameters.names, values, strict=True)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _find_row, (self.key, self.code)

    def __repr__(self) -> str:
        return self.key


ROWS: dict[str, CauseRow[...]] = {}
"""All declared rows, by :attr:`CauseRow.key`."""


def _find_row(key: str, code: CauseCode) -> CauseRow[...]:
    return ROWS.get(key) or _row_as_read(code)


def cause(code: CauseCode, **columns: Any) -> Callable[[Callable[P, str]], CauseRow[P]]:
    """Return a decorator that adds a function to :data:`ROWS` as a row; see :class:`CauseRow`."""

    def make(words: Callable[P, str]) -> CauseRow[P]:
        made = CauseRow(code, words, **columns)
        if made.key in ROWS:
            raise ValueError(f"two causes are called {made.key}")
        ROWS[made.key] = made
        return made

    return make


class Cause:
    """One cause, an immutable value; :meth:`replace` returns a changed copy.

    Args:
        params: The row's parameters in order, each with its name and value.
        when: When the cause was seen.
        answers_others: Whether the endpoint answers other clients, so that it fails intermittently.
        answers_nodes: Whether the endpoint answers other nodes: known only if all nodes are read.
        answers_own: Whether the only other node that it answers is its own.
        host: The DNS name that resolved to the endpoint, or the endpoint's IP if its slice names no
            pod; empty if it is in a pod.
        has_header: Whether the endpoint receives a PROXY header first.
        is_terminating: Whether the endpoint is used although it is terminating.
        before: The endpoint's previous failure; None if it had none.
        more: The number of similar causes that aren't listed.
        count: The number of occurrences; 0 for a state, which has no count.
        within: The object that contains the object of the cause; empty if that is the Service.
        first_at: The Unix time of the first sighting (in a plan: monotonic seconds); 0 if unknown.
        last_at: The Unix time of the last sighting; 0 if unknown.
    """

    __slots__ = (
        "_shared", "answers_nodes", "answers_others", "answers_own", "before", "count", "fact",
        "first_at", "has_header", "host", "is_terminating", "last_at", "more", "params", "row",
        "when", "within", "written",
    )  # fmt: skip

    def __init__(
        self,
        row: CauseRow[...],
        params: Sequence[tuple[str, Param]] = (),
        *,
        when: When = When.NOW,
        answers_others: bool = False,
        answers_nodes: bool = False,
        answers_own: bool = False,
        host: str = "",
        has_header: bool = False,
        is_terminating: bool = False,
        before: Cause | None = None,
        more: int = 0,
        within: str = "",
        count: int = 0,
        first_at: float = 0.0,
        last_at: float = 0.0,
    ) -> None:
        self.row, self.params = row, tuple(params)
        self.when, self.answers_others, self.answers_nodes = when, answers_others, answers_nodes
        self.answers_own, self.is_terminating = answers_own, is_terminating
        self.host, self.has_header, self.before, self.more = host, has_header, before, more
        self.within = within
        self.count, self.first_at, self.last_at = count, first_at, last_at
        past: object = None if before is None else before.fact
        self.fact: tuple[object, ...] = (
            row.key, self.params, when, has_header, is_terminating, past, more, within,
        )  # fmt: skip
        """The statement of the sentence as a value, without the count and the remedy."""
        self._shared: tuple[object, ...] = ()
        self.written: object = None
        """The last serialised form, which is kept because most causes are written again
        unchanged."""

    @property
    def code(self) -> CauseCode:
        return self.row.code

    @property
    def shared(self) -> tuple[object, ...] | None:
        """The cause's identity across Services; None if the cause belongs to its Service.

        Without ``row.shared``, a cause about an endpoint is identified by its code and the address.
        """
        places = self.row.places
        if places is None:
            return None
        # Cost: a page of ten thousand Services may group that many causes each time it is shown.
        if not self._shared:
            self._shared = (self.code, *[self.params[place][1] for place in places])
        # If the last value is empty, the cause isn't shared: causes of such a row are shared by
        # chain, and this cause names no chain.
        return None if self._shared[-1] == "" else self._shared

    @property
    def is_of_pods(self) -> bool:
        """Whether the state of the Service's pods shows more, which ``explain --pods`` reads."""
        row = self.row
        return self.code.traits.is_of_pods and not (row.is_of_slices or row.kubectl)

    @property
    def is_of_way(self) -> bool:
        """Whether the remedy inspects the network, because the endpoint answers other nodes."""
        return self.answers_nodes and bool(self.row.to_some_nodes)

    def get(self, name: str, default: Param = "") -> Param:
        """Return a parameter, or the default if the row has no parameter of this name."""
        return next((value for known, value in self.params if known == name), default)

    def replace(self, **changes: Any) -> Cause:
        """Return a copy with changed :data:`MODIFIERS`."""
        return Cause(self.row, self.params, **{**self.modifiers(), **changes})

    def modifiers(self) -> Mapping[str, Any]:
        return {name: getattr(self, name) for name in MODIFIERS}

    def _given(self) -> list[str]:
        return [name for name in MODIFIERS if getattr(self, name) not in (When.NOW, 0, "", None)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cause):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        params = [f"{name}={value!r}" for name, value in self.params]
        given = [f"{name}={getattr(self, name)!r}" for name in self._given()]
        return f"{self.row}({', '.join([*params, *given])})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.row, self.params, dict(self.modifiers()))

    def _key(self) -> tuple[object, ...]:
        of_remedy = self.answers_others, self.answers_nodes, self.answers_own, self.host
        return self.fact, of_remedy, self.count, self.first_at, self.last_at


MODIFIERS = (
    "when", "answers_others", "answers_nodes", "answers_own", "host", "has_header",
    "is_terminating", "before", "more", "within", "count", "first_at", "last_at",
)  # fmt: skip
"""The attributes that :meth:`Cause.replace` can change."""


def _make(row: CauseRow[...], params: Sequence[tuple[str, Param]], modifiers: Any) -> Cause:
    return Cause(row, params, **modifiers)


def _plain(value: object) -> Param:
    """Convert a parameter to a JSON value; addresses and names of objects become text."""
    if isinstance(value, bool | int | float):
        return value
    # Names of objects, which are instances of tuple subclasses, become text instead.
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return tuple(map(str, value))
    return str(value)


def as_read(code: CauseCode, sentence: str = "", about: str = "", hint: str = "") -> Cause:
    """Return a cause with the texts from another proxy, whose row this version lacks."""
    return _row_as_read(code)(sentence, about, hint)


@lru_cache(maxsize=NEWER_MAX)
def _row_as_read(code: CauseCode) -> CauseRow[...]:
    # The row is named after the code, because causes are compared by row name.
    name = f"as-read {code}"
    return CauseRow(code, _as_read, about="{about}", hint=lambda hint, **_: hint, name=name)


# Ignore other parameters, which only a newer proxy declares.
def _as_read(sentence: str, about: str, hint: str, **_: Param) -> str:
    return sentence
