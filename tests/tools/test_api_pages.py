import msgspec
import pytest

from userspace_proxy.facts import StatusFacts
from userspace_proxy.facts.connection import ConnectionFacts
from userspace_proxy.facts.edges import EdgesFacts

from .api_pages import make_schema, make_tables


@pytest.mark.parametrize("answer", [StatusFacts, ConnectionFacts, EdgesFacts])
def test_each_field_of_an_answer_is_described(answer: type[msgspec.Struct]) -> None:
    part = make_schema()["$defs"][answer.__name__]
    assert tuple(part["properties"]) == answer.__struct_fields__
    assert all(field.get("description") for field in part["properties"].values())


def test_each_reference_of_the_schema_leads_somewhere() -> None:
    schema = make_schema()
    text = msgspec.json.encode(schema).decode()
    names = {part.partition('"')[0] for part in text.split('"#/$defs/')[1:]}
    # These two are answers of their own.
    assert names | {"ConnectionFacts", "EdgesFacts"} == schema["$defs"].keys()


def test_every_field_is_required_as_the_answer_contains_all() -> None:
    for name, part in make_schema()["$defs"].items():
        assert part.get("required", []) == list(part.get("properties", ())), name


def test_each_field_is_described_once_and_named_in_each_object() -> None:
    schema = make_schema()
    sections = {part.partition("\n")[0]: part for part in make_tables(schema).split("### ") if part}
    for name, part in schema["$defs"].items():
        section = sections[name.removesuffix("Facts")]
        assert [f for f in part.get("properties", ()) if f"`{f}`" not in section] == []
    assert "As in [Port](#port): `active`, `stalled`" in sections["Endpoint"]
    assert "| `refused` |" not in sections["Totals"]
