import pytest

from userspace_proxy.steering import TrackingTimeouts

NAME = "net.netfilter.nf_conntrack_tcp_timeout_close_wait"


@pytest.fixture
def setting(tmp_path):
    path = tmp_path.joinpath(*NAME.split("."))
    path.parent.mkdir(parents=True)
    path.write_text("60\n")
    return path


def test_it_is_raised_and_put_back(setting, tmp_path):
    timeouts = TrackingTimeouts(3600.0, tmp_path)
    assert timeouts.hold() == ""
    assert setting.read_text() == "3600\n"
    timeouts.put_back()
    assert setting.read_text() == "60\n"


def test_a_fraction_of_a_second_is_rounded_up(setting, tmp_path):
    TrackingTimeouts(60.5, tmp_path).hold()
    assert setting.read_text() == "61\n"


@pytest.mark.parametrize("found", ["3600\n", "86400\n"])
def test_a_time_that_is_long_enough_stays_and_is_nothing_to_put_back(setting, tmp_path, found):
    setting.write_text(found)
    timeouts = TrackingTimeouts(3600.0, tmp_path)
    assert timeouts.hold() == ""
    timeouts.put_back()
    assert setting.read_text() == found


def test_what_somebody_else_has_changed_meanwhile_stays(setting, tmp_path):
    timeouts = TrackingTimeouts(3600.0, tmp_path)
    timeouts.hold()
    setting.write_text("7200\n")
    timeouts.put_back()
    assert setting.read_text() == "7200\n"


def test_it_is_put_back_once(setting, tmp_path):
    timeouts = TrackingTimeouts(3600.0, tmp_path)
    timeouts.hold()
    timeouts.put_back()
    setting.write_text("3600\n")
    timeouts.put_back()
    assert setting.read_text() == "3600\n"


def test_where_there_is_no_such_setting_the_reason_is_told(tmp_path):
    timeouts = TrackingTimeouts(3600.0, tmp_path)
    assert timeouts.hold() == f"cannot raise {NAME} to 3600 s: No such file or directory"
    timeouts.put_back()


def test_a_number_that_the_kernel_refuses_is_a_reason_too(setting, tmp_path):
    """As a file that takes no bytes does; so does one that can't be written."""
    setting.unlink()
    setting.mkdir()
    assert TrackingTimeouts(3600.0, tmp_path).hold().endswith("Is a directory")
