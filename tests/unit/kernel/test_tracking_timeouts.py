import pytest

from userspace_proxy.kernel.tracking_timeouts import TrackingTimeouts

NAME = "net.netfilter.nf_conntrack_tcp_timeout_close_wait"


@pytest.fixture
def setting(tmp_path):
    path = tmp_path.joinpath(*NAME.split("."))
    path.parent.mkdir(parents=True)
    path.write_text("60\n")
    return path


def test_the_timeout_is_raised_and_restored(setting, tmp_path):
    timeouts = TrackingTimeouts(3600.0, proc_sys=tmp_path)
    assert timeouts.hold() == ""
    assert setting.read_text() == "3600\n"
    timeouts.put_back()
    assert setting.read_text() == "60\n"


def test_a_fraction_of_a_second_is_rounded_up(setting, tmp_path):
    TrackingTimeouts(60.5, proc_sys=tmp_path).hold()
    assert setting.read_text() == "61\n"


@pytest.mark.parametrize("found", ["3600\n", "86400\n"])
def test_a_timeout_that_is_long_enough_is_neither_raised_nor_restored(setting, tmp_path, found):
    setting.write_text(found)
    timeouts = TrackingTimeouts(3600.0, proc_sys=tmp_path)
    assert timeouts.hold() == ""
    timeouts.put_back()
    assert setting.read_text() == found


def test_a_value_that_another_program_has_set_meanwhile_stays(setting, tmp_path):
    timeouts = TrackingTimeouts(3600.0, proc_sys=tmp_path)
    timeouts.hold()
    setting.write_text("7200\n")
    timeouts.put_back()
    assert setting.read_text() == "7200\n"


def test_the_timeout_is_restored_once(setting, tmp_path):
    timeouts = TrackingTimeouts(3600.0, proc_sys=tmp_path)
    timeouts.hold()
    timeouts.put_back()
    setting.write_text("3600\n")
    timeouts.put_back()
    assert setting.read_text() == "3600\n"


def test_a_missing_setting_is_reported_as_the_reason(tmp_path):
    timeouts = TrackingTimeouts(3600.0, proc_sys=tmp_path)
    assert timeouts.hold() == f"cannot raise {NAME} to 3600 s: No such file or directory"
    timeouts.put_back()


def test_a_number_that_the_kernel_refuses_is_reported_as_the_reason(setting, tmp_path):
    """As a file that takes no bytes does; so does one that can't be written."""
    setting.unlink()
    setting.mkdir()
    assert TrackingTimeouts(3600.0, proc_sys=tmp_path).hold().endswith("Is a directory")


@pytest.mark.parametrize("wanted", [1800.0, 3600.0, 7200.0])
def test_what_a_process_did_not_restore_its_successor_does(setting, tmp_path, wanted):
    folder = tmp_path / "state"
    TrackingTimeouts(3600.0, folder, tmp_path).hold()
    successor = TrackingTimeouts(wanted, folder, tmp_path)
    assert successor.hold() == ""
    assert int(setting.read_text()) >= wanted
    successor.put_back()
    assert setting.read_text() == "60\n"
    assert not list(folder.iterdir())


def test_a_note_of_another_value_counts_no_more(setting, tmp_path):
    TrackingTimeouts(3600.0, tmp_path, tmp_path).hold()
    setting.write_text("120\n")
    successor = TrackingTimeouts(3600.0, tmp_path, tmp_path)
    successor.hold()
    successor.put_back()
    assert setting.read_text() == "120\n"


@pytest.mark.parametrize("noted", ["", "3600", "3600 sixty", "1 2 3"])
def test_a_note_that_is_not_one_is_left_out(setting, tmp_path, noted):
    setting.write_text("3600\n")
    (tmp_path / "conntrack-close-wait").write_text(noted)
    timeouts = TrackingTimeouts(3600.0, tmp_path, tmp_path)
    assert timeouts.hold() == ""
    timeouts.put_back()
    assert setting.read_text() == "3600\n"


def test_where_nothing_can_be_noted_it_is_raised_all_the_same(setting, tmp_path):
    (tmp_path / "file").write_text("")
    timeouts = TrackingTimeouts(3600.0, tmp_path / "file" / "folder", tmp_path)
    assert timeouts.hold() == ""
    assert setting.read_text() == "3600\n"
    timeouts.put_back()
    assert setting.read_text() == "60\n"
