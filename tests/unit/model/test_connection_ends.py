"""Tests of the reasons why connections end, and of the side that ends them."""

from userspace_proxy.model.connection_ends import EndReason


def test_an_end_reason_is_read_from_text_and_is_normal_or_a_failure():
    assert EndReason("idle") is EndReason.IDLE
    assert (EndReason.IDLE.is_sound, EndReason.RESET.is_sound) == (True, False)
