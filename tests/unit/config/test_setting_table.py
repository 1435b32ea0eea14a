from dataclasses import dataclass

from userspace_proxy.config.kinds import TEXT
from userspace_proxy.config.setting_table import Topic, rows_of, setting


@dataclass(frozen=True, slots=True)
class Few:
    first: str = setting("a", kind=TEXT, topic=Topic.NODE, help="one", why="so", flag="first")
    second: str = setting("b", kind=TEXT, topic=Topic.NODE, help="two", why="so", flag="second")
    plain: str = ""


def test_setting_rows_have_the_order_of_fields_and_skip_fields_without_a_row():
    assert [(name, row.flag) for name, row in rows_of(Few).items()] == [
        ("first", "first"),
        ("second", "second"),
    ]
