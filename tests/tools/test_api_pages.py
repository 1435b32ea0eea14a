import msgspec

from userspace_proxy.facts import StatusFacts

from .api_pages import make_schema, make_tables


def test_each_field_of_the_answer_is_described() -> None:
    status = make_schema()["$defs"]["StatusFacts"]
    assert tuple(status["properties"]) == StatusFacts.__struct_fields__
    assert all(field.get("description") for field in status["properties"].values())


def test_each_reference_of_the_schema_leads_somewhere() -> None:
    schema = make_schema()
    text = msgspec.json.encode(schema).decode()
    names = {part.partition('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert names == schema["$defs"].keys()


def test_every_field_is_required_as_the_answer_contains_all() -> None:
    for name, part in make_schema()["$defs"].items():
        assert part.get("required", []) == list(part.get("properties", ())), name


def test_each_field_is_described_once_and_named_in_each_object() -> None:
    schema = make_schema()
    sections = {part.partition("\n")[0]: part for part in make_tables(schema).split("### ") if part}
    for name, part in schema["$defs"].items():
        section = sections[name.removesuffix("Facts")]
        assert [f for f in part.get("properties", ()) if f"`{f}`" not in section] == []
    assert "As in [Port](#port): `active`, `connections`" in sections["Endpoint"]
    assert "| `refused` |" not in sections["Totals"]
