import pytest

from tests.unit.filters.written import nft


@pytest.mark.parametrize(
    ("verdict", "text", "expected"),
    [
        pytest.param("jump zone", "tcp dport 22", "tcp dport 22 jump zone", id="jump"),
        pytest.param("", "iif lo", "iif lo", id="no-verdict"),
    ],
)
def test_a_rule_is_shown_in_the_syntax_of_nft(verdict, text, expected):
    assert str(nft(verdict, text)) == expected
