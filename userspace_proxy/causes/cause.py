"""A cause: why clients of a Service aren't served, or an endpoint isn't used, for all observers.

    code, declared once: what follows from a name alone, its traits
      └ row, declared once: words, remedies ──called with typed parameters──▶ Cause ──say──▶ text

Rule 1: a cause is a value: equal facts are equal causes. It has no text: ``say`` is the only place
where a row's words are read.
Rule 2: a row is a function, whose parameters are those of its causes, and whose body is its
sentence. Other texts are templates, or functions with the same parameters.
Rule 3: when it was, whether others are answered, and what an endpoint gets first are modifiers of a
cause, not causes of their own.
Rule 4: whatever must be known of each code is one of its traits, never a list of codes elsewhere.
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
"""So many codes of one answer that this version doesn't know are told apart."""
newer_codes: dict[str, CauseCode] = {}
"""Those of the answer that is being read; who reads the next one clears it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What follows from the code of a cause; each default is what most causes have.

    The words of commands have places: ``{namespace}`` and ``{name}`` of the Service, ``{pod}`` and
    ``{ip}`` of what the cause is about.
    """

    is_of_endpoint: bool = False
    """It is about an endpoint, which a dial may show more of."""
    is_of_now: bool = False
    """Its remedy looks at what is so at this moment."""
    is_dial: bool = False
    """A dial fails with it, so it is counted of each endpoint."""
    is_slow: bool = False
    """Such a dial lasts until its time is up."""
    serves: bool = False
    """Clients get to the endpoint in spite of it."""
    accepts: bool = False
    """The endpoint accepts the connections that it is the cause of."""
    is_unanswered: bool = False
    """Clients leave without a byte: an observation, not a failure."""
    may_be_header: bool = False
    """A PROXY header that the program doesn't expect looks the same."""
    is_of_address: bool = False
    """Some addresses of the Service port aren't served, perhaps all."""
    is_mistake: bool = False
    """A user has written something that has no effect; other notes are as intended."""
    is_by_design: bool = False
    """The Service, or this address, isn't this proxy's to serve."""
    is_of_pods: bool = False
    """The pods themselves show more."""
    kubectl: str = ""
    """Words after ``kubectl`` that show more; empty: for an endpoint, the pod with its address."""
    kubectl_of_pod: str = ""
    """The same for one pod that was named."""
    on_node: str = ""
    """A command on the node that shows more."""


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
    """On the endpoint's link no host has its address: ARP or neighbour discovery isn't answered."""
    ENDPOINT_RESETS = (
        "endpoint-resets",
        Traits(is_of_endpoint=True, is_dial=True, accepts=True, may_be_header=True),
    )
    """It accepts connections and ends them without having sent a byte."""
    ENDPOINT_SENDS_NOTHING = (
        "endpoint-sends-nothing",
        Traits(is_of_endpoint=True, accepts=True, is_unanswered=True, may_be_header=True),
    )
    """It accepts connections, and sends nothing until the clients give up."""
    ENDPOINT_ANSWERS_LATE = (
        "endpoint-answers-late",
        Traits(is_of_endpoint=True, accepts=True, is_unanswered=True, may_be_header=True),
    )
    """Its first byte comes after the clients have given up."""
    ENDPOINT_DENIES = (
        "endpoint-denies",
        Traits(
            is_of_endpoint=True,
            serves=True,
            accepts=True,
            kubectl="get networkpolicies -n {namespace} -o yaml",
        ),
    )
    """It answers this node, or other clients, and doesn't answer some clients."""
    ENDPOINT_CUTS_OFF = (
        "endpoint-cuts-off",
        Traits(is_of_endpoint=True, serves=True, accepts=True, may_be_header=True),
    )
    """It resets connections after it has sent bytes."""
    PACKETS_LOST = "packets-lost", Traits(accepts=True)
    """Behind the handshake, packets to or from an endpoint, or to a client, don't arrive."""
    ENDPOINT_FAILS = "endpoint-fails", Traits(is_of_endpoint=True, is_of_now=True, is_dial=True)
    """A dial failed with another error."""
    ENDPOINT_NOT_ALLOWED = "endpoint-not-allowed", Traits(kubectl=_SLICES)
    """Its address is this node's, or reserved (CVE-2021-25737)."""
    NAME_NOT_ALLOWED = "name-not-allowed"
    """The operator doesn't allow the name of an endpoint, or not as many."""
    NAME_UNRESOLVED = "name-unresolved"
    """DNS has no address for the name of an endpoint, or none now."""
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
    """A slice of another namespace names a Service of this name."""
    SLICE_ORPHANED = (
        "slice-orphaned",
        Traits(kubectl="get endpointslices -n {namespace} --show-labels"),
    )
    """A slice names a Service that doesn't exist and whose name is similar, or names none."""
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
    NO_PROXY_HEADER = "no-proxy-header"
    """A client that ``--accept-proxy-protocol`` contains sends no PROXY header."""
    HOP_LIMIT = "hop-limit"
    """Datagrams of clients arrive with a hop limit (TTL) that is used up."""
    EXTERNAL_IP_OFF = "external-ip-off", Traits(is_of_address=True)
    ADDRESS_TAKEN = "address-taken", Traits(is_of_address=True, kubectl="get services -A -o wide")
    NOT_OURS = "not-ours", Traits(is_by_design=True)
    """This proxy doesn't serve such Services or ports."""
    NOT_FOLLOWED = "not-followed", Traits(is_mistake=True)
    """A field or annotation has no effect."""
    TOO_MANY_ENDPOINTS = "too-many-endpoints"
    TOO_MANY_FRONTENDS = "too-many-frontends"
    """A Service, or those of a namespace, have too many ports and addresses."""
    NOT_LISTENING = "not-listening", Traits(on_node="ss -Hlntup")
    """A proxy port or node port can't be opened, or a frontend can't be steered to it."""
    FAULT_ON_PURPOSE = "fault-on-purpose", Traits(is_dial=True, serves=True, accepts=True)
    """A call, a toxiproxy client or an annotation asked for a fault, and it is in force."""
    OUT_OF_PORTS = "out-of-ports"
    OUT_OF_CLIENT_PORTS = "out-of-client-ports"
    FIREWALL_DROPS = "firewall-drops"
    AGENT_BEHIND = "agent-behind"
    """A node's plan isn't that of the API server; said by a reader of all nodes."""
    NODES_DIFFER = "nodes-differ"
    """A node differs from the others, or has what it shouldn't; likewise."""
    SOURCE_AWAY = "source-away"
    """The API server or the manifests can't be read."""
    AGENT_MISSING = "agent-missing"
    """No proxy runs on a node; said by a reader of all nodes."""
    AGENT_UNREAD = "agent-unread"
    """The proxy of a node has no answer that can be read."""

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        # Python 3.11.2 looks a member up by its name; one of _missing_ has none that it knows.
        return CauseCode, (str(self),)

    @classmethod
    def _missing_(cls, value: object) -> CauseCode:
        """Return the code of a newer proxy, whose JSON this one reads; it has no other name."""
        # No proxy has more: only their sentences are kept.
        name = str(value) if value in newer_codes or len(newer_codes) < NEWER_MAX else ""
        code = newer_codes.get(name)
        if code is None:
            code = newer_codes[name] = str.__new__(cls, name)
            code._name_ = code._value_ = name
            code.traits = _PLAIN
        return code


_FAILS = CauseCode.ENDPOINT_FAILS
DIAL_CAUSES = (*(one for one in CauseCode if one.traits.is_dial and one is not _FAILS), _FAILS)
"""Why dials fail; the last one is of all other errors."""


Param: TypeAlias = str | int | float | bool | tuple[str, ...]
"""A parameter: what JSON can express, so that another process can read it."""
Text: TypeAlias = str | Callable[..., str]
"""A template with the names of parameters, or a function of them; empty: there is none."""
P = ParamSpec("P")


class When(enum.StrEnum):
    """The time that a cause is about."""

    NOW = "now"
    LAST_MINUTE = "last_minute"
    """A moment ago; it may have answered since."""
    PAST = "past"
    """A while ago; nothing has tried since."""


class Parameters:
    """The parameters of a function; values are bound to them as by its call, but without one."""

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
        # A parameter by keyword without a default is missing after any number of values.
        are_last = self.names[last_of[0] :] == tuple(self._defaults)
        self._rest = {n: values[n - last_of[0] :] for n in last_of} if are_last else {}
        """By how many values are given, the defaults of the others."""

    def bound(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[object, ...]:
        """Return the values in the order of the names; raises TypeError if they don't fit."""
        # Cost: a view of 10,000 Service ports makes as many, mostly so.
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
    """All that is known of one cause; called with its parameters, it returns a :class:`Cause`."""

    code: CauseCode
    """Its name in metrics and docs; several rows may share it."""
    words: Callable[P, str]
    """Its sentence, or what follows the object in it (``is_predicate``)."""
    about: Text = ""
    """Its object."""
    is_predicate: bool = False
    """The sentence begins with the object, which ``words``, ``past`` and ``short`` leave out."""
    past: Text = ""
    """The same about the past; empty: the same."""
    short: Text = ""
    """The same without what it may be; empty: all of it."""
    hint: Text = ""
    """What to do about it; empty if the sentence contains it."""
    command: Text = ""
    """The same as words after ``kubectl``; empty: ``hint``."""
    outside: Text = ""
    """The same for an endpoint by name, which is no pod: ``{host}``, ``{ip}``."""
    at_times: Text = ""
    """The same where others are answered; empty: the same."""
    at_times_outside: Text = ""
    """Both."""
    is_of_slices: bool = False
    """It is about a Service's slices, not its pods."""
    is_of_host: bool = False
    """All endpoints of a host that is gone fail so."""
    kubectl: str = ""
    """Words after ``kubectl`` that show more; empty: those of its code."""
    shared: Sequence[str] | None = None
    """The parameters by which it is one cause of all Services that it touches; None: the endpoint
    that it is about, without one it is its Service's own."""
    name: str = ""
    """Its key; empty: that of the function."""

    @cached_property
    def key(self) -> str:
        """Its name among all rows."""
        return self.name or self.words.__name__

    @cached_property
    def _parameters(self) -> Parameters:
        return Parameters(self.words)

    @cached_property
    def places(self) -> Sequence[int] | None:
        """The places of the parameters of ``shared``; None: it is its Service's own."""
        names = self._parameters.names
        if self.shared is not None:
            return [names.index(name) for name in self.shared]
        return [names.index("at")] if "at" in names else None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Cause:
        """Return the cause with these parameters; objects are kept as they are written."""
        values = map(_plain, self._parameters.bound(args, kwargs))
        return Cause(self, tuple(zip(self._parameters.names, values, strict=True)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _find_row, (self.key, self.code)

    def __repr__(self) -> str:
        return self.key


ROWS: dict[str, CauseRow[...]] = {}
"""All rows, by the names of their functions."""


def _find_row(key: str, code: CauseCode) -> CauseRow[...]:
    return ROWS.get(key) or _row_as_read(code)


def cause(code: CauseCode, **columns: Any) -> Callable[[Callable[P, str]], CauseRow[P]]:
    """Return a decorator that makes a function the row of a cause; see :class:`CauseRow`."""

    def make(words: Callable[P, str]) -> CauseRow[P]:
        made = CauseRow(code, words, **columns)
        if made.key in ROWS:
            raise ValueError(f"two causes are called {made.key}")
        ROWS[made.key] = made
        return made

    return make


class Cause:
    """One cause, by value. :meth:`replace` makes another one: none is changed.

    Args:
        params: The row's, in its order.
        when: The time that it is about.
        answers_others: The endpoint answers others, so it fails at times.
        host: The name by which the endpoint was found; empty: it is an address, as of pods.
        has_header: The endpoint gets a PROXY header first.
        before: How the endpoint failed before; None: it didn't.
        more: How many further ones like it aren't listed.
        count: How often it was seen; 0 for a state, which isn't counted.
        within: What contains what it is about, if that isn't the Service; empty: it is.
        first_at: Unix time at which it was first seen, in a plan monotonic seconds; 0 if unknown.
        last_at: Unix time at which it was last seen; 0 if unknown.
    """

    __slots__ = (
        "_shared", "answers_others", "before", "count", "fact", "first_at", "has_header", "host",
        "last_at", "more", "params", "row", "when", "within", "written",
    )  # fmt: skip

    def __init__(
        self,
        row: CauseRow[...],
        params: Sequence[tuple[str, Param]] = (),
        *,
        when: When = When.NOW,
        answers_others: bool = False,
        host: str = "",
        has_header: bool = False,
        before: Cause | None = None,
        more: int = 0,
        within: str = "",
        count: int = 0,
        first_at: float = 0.0,
        last_at: float = 0.0,
    ) -> None:
        self.row, self.params = row, tuple(params)
        self.when, self.answers_others = when, answers_others
        self.host, self.has_header, self.before, self.more = host, has_header, before, more
        self.within = within
        self.count, self.first_at, self.last_at = count, first_at, last_at
        past: object = None if before is None else before.fact
        self.fact: tuple[object, ...] = (
            row.key, self.params, when, has_header, past, more, within,
        )  # fmt: skip
        """What its sentence states, by value; not how often it was seen, nor what to do."""
        self._shared: tuple[object, ...] = ()
        self.written: object = None
        """What was last written of it, as most causes are written again unchanged."""

    @property
    def code(self) -> CauseCode:
        return self.row.code

    @property
    def shared(self) -> tuple[object, ...] | None:
        """What makes it one cause of all Services that it touches; None: it is its Service's own.

        The endpoint's address, where it is about one, whatever else is known of how it fails.
        """
        places = self.row.places
        if places is None:
            return None
        # Cost: a page of ten thousand Services may group as many, again and again.
        if not self._shared:
            self._shared = (self.code, *[self.params[place][1] for place in places])
        # One that may have a chain to blame, and has none.
        return None if self._shared[-1] == "" else self._shared

    def get(self, name: str, default: Param = "") -> Param:
        """Return a parameter; the default where the row has none of this name."""
        return next((value for known, value in self.params if known == name), default)

    def replace(self, **changes: Any) -> Cause:
        """Return a copy with other modifiers, or another count."""
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
        of_remedy = self.answers_others, self.host
        return self.fact, of_remedy, self.count, self.first_at, self.last_at


MODIFIERS = (
    "when", "answers_others", "host", "has_header", "before", "more", "within", "count",
    "first_at", "last_at",
)  # fmt: skip
"""The names of what :meth:`Cause.replace` changes."""


def _make(row: CauseRow[...], params: Sequence[tuple[str, Param]], modifiers: Any) -> Cause:
    return Cause(row, params, **modifiers)


def _plain(value: object) -> Param:
    """Return a parameter as JSON can express it; an address, or the name of an object, as text."""
    if isinstance(value, bool | int | float):
        return value
    # A name of several parts is a tuple of another type.
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return tuple(map(str, value))
    return str(value)


def as_read(code: CauseCode, sentence: str = "", about: str = "", hint: str = "") -> Cause:
    """Return a cause in the words of another proxy, whose row is unknown here."""
    return _row_as_read(code)(sentence, about, hint)


@lru_cache(maxsize=NEWER_MAX)
def _row_as_read(code: CauseCode) -> CauseRow[...]:
    # Named after the code, as causes are compared by the names of their rows.
    name = f"as-read {code}"
    return CauseRow(code, _as_read, about="{about}", hint=lambda hint, **_: hint, name=name)


# What it has beside these is what a newer proxy knows.
def _as_read(sentence: str, about: str, hint: str, **_: Param) -> str:
    return sentence
