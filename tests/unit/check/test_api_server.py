from userspace_proxy.check.api_server import judge_server


def test_a_server_that_permits_reading_is_ok():
    (found,) = judge_server("https://192.0.2.1", (), "v1.36.3")
    assert str(found) == (
        "ok       API server: Services, EndpointSlices and this Node can be read "
        "(Kubernetes v1.36.3) [https://192.0.2.1]"
    )


def test_pods_are_named_if_they_are_read():
    (found,) = judge_server("https://192.0.2.1", (), "", with_pods=True)
    assert "EndpointSlices, Pods and this Node can be read" in found.what


def test_each_refusal_is_an_error():
    found = judge_server("https://192.0.2.1", ("no services", "no nodes"), "")
    assert [f"{f.mark}: {f.what}" for f in found] == ["error: no services", "error: no nodes"]
