"""The generated file."""

from tests.tools.blocking_api import TARGET, generate


def test_the_blocking_api_is_up_to_date() -> None:
    assert TARGET.read_text() == generate(), "run make docs"
