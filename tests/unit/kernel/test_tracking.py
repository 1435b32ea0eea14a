import pytest

from userspace_proxy.kernel.tracking import TrackingTable, TrackingTimeouts, read_table
from userspace_proxy.state_file import StateFile

STAT = """\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop
0000001e  00000000 00000000 00000000 00000000 00000000 00000000 0 0 0 0000000a 0
0000001e  00000000 00000000 00000000 00000000 00000000 00000000 0 0 0 00000006 0
"""


def test_without_connection_tracking_the_table_is_read_as_empty(tmp_path):
    assert read_table(tmp_path) == TrackingTable()


def test_the_size_and_use_of_the_conntrack_table_are_read_from_proc(tmp_path):
    sysctls, stat = tmp_path / "sys/net/netfilter", tmp_path / "thread-self/net/stat"
    for folder in (sysctls, stat):
        folder.mkdir(parents=True)
    (sysctls / "nf_conntrack_count").write_text("30\n")
    (sysctls / "nf_conntrack_max").write_text("262144\n")
    assert read_table(tmp_path) == TrackingTable(30, 262144, 0)
    (stat / "nf_conntrack").write_text(STAT)
    assert read_table(tmp_path) == TrackingTable(30, 262144, 16)


NAME = "net.netfilter.nf_conntrack_tcp_timeout_close_wait"


@pytest.fixture
def setting(tmp_path):
    path = tmp_path.joinpath(*NAME.split("."))
    path.parent.mkdir(parents=True)
    path.write_text("60\n")
    return path


def test_the_conntrack_timeout_is_raised_and_restored(setting, tmp_path):
    timeouts = TrackingTimeouts(3600.0, proc_sys=tmp_path)
    assert timeouts.hold() == ""
    assert setting.read_text() == "3600\n"
    timeouts.put_back()
    assert setting.read_text() == "60\n"


def test_the_conntrack_timeout_is_rounded_up_to_whole_seconds(setting, tmp_path):
    TrackingTimeouts(60.5, proc_sys=tmp_path).hold()
    assert setting.read_text() == "61\n"


@pytest.mark.parametrize("found", ["3600\n", "86400\n"])
def test_a_sufficient_conntrack_timeout_is_neither_raised_nor_restored(setting, tmp_path, found):
    setting.write_text(found)
    timeouts = TrackingTimeouts(3600.0, proc_sys=tmp_path)
    assert timeouts.hold() == ""
    timeouts.put_back()
    assert setting.read_text() == found


def test_a_timeout_later_set_by_another_program_is_not_restored(setting, tmp_path):
    timeouts = TrackingTimeouts(3600.0, proc_sys=tmp_path)
    timeouts.hold()
    setting.write_text("7200\n")
    timeouts.put_back()
    assert setting.read_text() == "7200\n"


def test_the_conntrack_timeout_is_restored_only_once(setting, tmp_path):
    timeouts = TrackingTimeouts(3600.0, proc_sys=tmp_path)
    timeouts.hold()
    timeouts.put_back()
    setting.write_text("3600\n")
    timeouts.put_back()
    assert setting.read_text() == "3600\n"


def test_a_missing_timeout_sysctl_is_reported(tmp_path):
    timeouts = TrackingTimeouts(3600.0, proc_sys=tmp_path)
    assert timeouts.hold() == "No such file or directory"
    timeouts.put_back()


def test_a_timeout_rejected_by_the_kernel_is_reported(setting, tmp_path):
    """A directory rejects writes, as an unwritable file does."""
    setting.unlink()
    setting.mkdir()
    assert TrackingTimeouts(3600.0, proc_sys=tmp_path).hold().endswith("Is a directory")


@pytest.fixture
def note(tmp_path):
    return StateFile(tmp_path / "state" / "note")


@pytest.fixture
def boot(tmp_path):
    path = tmp_path / "kernel" / "random" / "boot_id"
    path.parent.mkdir(parents=True)
    path.write_text("one\n")
    return path


@pytest.fixture
def process(tmp_path, note):
    """Return a function that creates the TrackingTimeouts of one process."""

    def process(wanted, *, file=note, is_last=True):
        return TrackingTimeouts(wanted, file, is_last=lambda: is_last, proc_sys=tmp_path)

    return process


@pytest.mark.parametrize("wanted", [1800.0, 3600.0, 7200.0])
def test_the_next_process_restores_the_raised_conntrack_timeout(setting, process, wanted):
    process(3600.0).hold()
    successor = process(wanted)
    assert successor.hold() == ""
    assert int(setting.read_text()) >= wanted
    successor.put_back()
    assert setting.read_text() == "60\n"
    setting.write_text("3600\n")
    third = process(3600.0)
    third.hold()
    third.put_back()
    assert setting.read_text() == "3600\n", "the value was restored twice"


def test_the_last_of_several_proxies_restores_the_conntrack_timeout(setting, process):
    first, second = process(3600.0, is_last=False), process(3600.0)
    first.hold()
    second.hold()
    first.put_back()
    assert setting.read_text() == "3600\n"
    second.put_back()
    assert setting.read_text() == "60\n"


def test_a_saved_conntrack_timeout_is_ignored_after_the_sysctl_was_changed(setting, process):
    process(3600.0).hold()
    setting.write_text("120\n")
    successor = process(3600.0)
    successor.hold()
    successor.put_back()
    assert setting.read_text() == "120\n"


def test_a_saved_conntrack_timeout_of_an_earlier_boot_is_ignored(setting, process, boot):
    process(3600.0).hold()
    boot.write_text("two\n")
    successor = process(3600.0)
    successor.hold()
    successor.put_back()
    assert setting.read_text() == "3600\n"


@pytest.mark.parametrize("noted", ["", "unknown 3600", "unknown 3600 sixty", "unknown 1 2 3"])
def test_an_invalid_saved_conntrack_timeout_is_ignored(setting, process, note, noted):
    setting.write_text("3600\n")
    note.write(noted.encode(), current_at=0.0)
    timeouts = process(3600.0)
    assert timeouts.hold() == ""
    timeouts.put_back()
    assert setting.read_text() == "3600\n"


def test_a_timeout_is_raised_even_if_its_old_value_cannot_be_saved(setting, process, tmp_path):
    (tmp_path / "file").write_text("")
    timeouts = process(3600.0, file=StateFile(tmp_path / "file" / "folder" / "note"))
    assert timeouts.hold() == ""
    assert setting.read_text() == "3600\n"
    timeouts.put_back()
    assert setting.read_text() == "60\n"
