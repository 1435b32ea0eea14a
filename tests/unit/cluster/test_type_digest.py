import enum
import os
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass
from typing import NamedTuple, Optional

import pytest

from userspace_proxy.cluster.type_digest import describe, digest


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Place(NamedTuple):
    x: int
    y: int = 0


@dataclass(frozen=True, slots=True)
class Thing:
    """A docstring."""

    name: str
    places: tuple[Place, ...] = ()
    colour: Colour | None = None
    sizes: dict[str, float] = field(default_factory=dict)

    @property
    def is_small(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Larger(Thing):
    more: tuple[str, int] = ("", 0)


THING = "{name:str,places:tuple[[x:int,y:int],...],colour:<red,2>|NoneType,sizes:dict[str,float]}"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        pytest.param(Thing, THING, id="all"),
        pytest.param(Larger, THING[:-1] + ",more:tuple[str,int]}", id="inherited"),
        pytest.param(str | None, "NoneType|str", id="union"),
        pytest.param(None | str, "NoneType|str", id="union-in-another-order"),
        pytest.param(Optional[str], "NoneType|str", id="optional"),  # noqa: UP045
        pytest.param(frozenset[str], "frozenset[str]", id="set"),
    ],
)
def test_a_type_is_described_by_its_field_names_and_types(kind, text):
    assert describe(kind) == text


def test_the_digest_of_a_type_is_the_same_in_all_python_versions():
    assert digest(Thing, Place) == 41760835980832


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([("name", str)], id="fewer-fields"),
        pytest.param([("name", str), ("size", int), ("x", str)], id="more-fields"),
        pytest.param([("name", str), ("length", int)], id="another-name"),
        pytest.param([("name", str), ("size", float)], id="another-type"),
        pytest.param([("name", str), ("size", int | None)], id="optional-type"),
    ],
)
def test_a_different_field_changes_the_digest_of_a_type(fields):
    before = make_dataclass("Thing", [("name", str), ("size", int)])
    assert digest(make_dataclass("Thing", fields)) != digest(before)


def test_a_types_name_and_defaults_do_not_affect_the_digest():
    one = make_dataclass("One", [("size", int)])
    two = make_dataclass("Two", [("size", int, 5)])
    assert digest(one) == digest(two)


def test_the_state_format_is_the_same_in_each_process():
    program = "from userspace_proxy.cluster.encoding import FORMAT; print(FORMAT)"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
