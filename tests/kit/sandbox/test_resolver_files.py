from userspace_proxy_testing.sandbox import resolver_files, write_resolver_files


def test_resolv_conf_has_the_search_path_of_a_pod_in_the_namespace(tmp_path):
    files = write_resolver_files(tmp_path, "192.0.2.1", "shop")
    assert files["/etc/resolv.conf"].read_text() == (
        "nameserver 192.0.2.1\n"
        "search shop.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5\n"
    )


def test_nsswitch_uses_only_files_and_dns_for_hosts(tmp_path, monkeypatch):
    machine = tmp_path / "machine.conf"
    machine.write_text("passwd: files\nhosts: files resolve dns\n")
    monkeypatch.setattr(resolver_files, "_NSSWITCH", machine)
    files = write_resolver_files(tmp_path, "192.0.2.1", "shop")
    assert files[str(machine)].read_text() == "passwd: files\nhosts: files dns\n"


def test_no_nsswitch_conf_is_written_if_the_machine_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(resolver_files, "_NSSWITCH", tmp_path / "missing.conf")
    assert list(write_resolver_files(tmp_path, "192.0.2.1", "shop")) == ["/etc/resolv.conf"]
