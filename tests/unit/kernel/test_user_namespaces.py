from userspace_proxy.kernel.user_namespaces import forbidding, read_sysctls


def test_only_the_sysctls_of_this_kernel_are_read(tmp_path):
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "max_user_namespaces").write_text("0\n")
    assert read_sysctls(tmp_path) == {"user.max_user_namespaces": "0"}


def test_a_sysctl_that_forbids_them_is_returned_with_a_value_that_allows_them():
    sysctls = {"user.max_user_namespaces": "9000", "kernel.unprivileged_userns_clone": "0"}
    assert forbidding(sysctls) == ("kernel.unprivileged_userns_clone", "0", "1")
    assert forbidding({"user.max_user_namespaces": "9000"}) is None
