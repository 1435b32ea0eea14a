import pytest

from userspace_proxy.status.wrapping import placed, placed_remedy

WORDS = "no route to 10.244.0.9: that address does not exist, or its node is down"


@pytest.mark.parametrize("columns", [0, 80])
def test_a_text_that_fits_the_width_stays_on_one_line(columns):
    assert list(placed("  ! ", WORDS, columns)) == [f"  ! {WORDS}"]


def test_a_longer_text_continues_in_its_column():
    assert list(placed("  ✕ shop/flaky  0 of 1  ", WORDS, 60)) == [
        "  ✕ shop/flaky  0 of 1  no route to 10.244.0.9: that address",
        "                        does not exist, or its node is down",
    ]


def test_if_its_column_is_too_narrow_a_text_starts_on_the_next_line():
    head = "  ✕ kube-system/metrics-server:https  [fd00::7:1]:443  0 of 1  "
    assert list(placed(head, WORDS, 60)) == [
        head.rstrip(),
        "      no route to 10.244.0.9: that address does not exist,",
        "      or its node is down",
    ]


def test_leading_blanks_are_kept_on_each_line():
    assert list(placed("", f"  {WORDS}", 50)) == [
        "  no route to 10.244.0.9: that address does not",
        "  exist, or its node is down",
    ]


def test_words_and_names_are_not_broken():
    name = "a-" * 40
    assert list(placed("  ", f"{name} b", 60)) == [f"  {name}", "  b"]


def test_a_command_stays_on_one_line_and_a_sentence_is_wrapped():
    command = "kubectl get pods --namespace=shop -l app.kubernetes.io/name=web"
    assert list(placed_remedy("   -> ", command, 50)) == [f"   -> {command}"]
    assert len(list(placed_remedy("   -> ", command.capitalize(), 50))) == 2
