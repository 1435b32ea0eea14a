from collections.abc import Callable
from pathlib import Path

import pytest

from .generated import FILES


@pytest.mark.parametrize(
    ("path", "make"), [pytest.param(*item, id=item[0].name) for item in FILES.items()]
)
def test_a_generated_file_is_up_to_date(path: Path, make: Callable[[str], str]) -> None:
    text = path.read_text(encoding="utf-8")
    assert make(text) == text, "renew it: make docs"
