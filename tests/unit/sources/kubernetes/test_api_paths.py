"""Quoting names in API paths, and rejecting ambiguous paths."""

import pytest

from userspace_proxy.sources.kubernetes.api_paths import check, join
from userspace_proxy.sources.kubernetes.responses import TransportError

POD = "/api/v1/namespaces/shop/pods/"


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        pytest.param("web-1.a", "web-1.a", id="plain"),
        pytest.param("../../nodes", "..%2F..%2Fnodes", id="parents"),
        pytest.param("web?command=sh&a=b", "web%3Fcommand%3Dsh%26a%3Db", id="query"),
        pytest.param("web#", "web%23", id="fragment"),
        pytest.param("web%2Fexec", "web%252Fexec", id="escape"),
        pytest.param("wéb\r\n", "w%C3%A9b%0D%0A", id="other-characters"),
    ],
)
def test_a_name_is_quoted_as_one_path_segment(name, segment):
    path = join("/api/v1/namespaces", "shop", "pods", name)
    assert path == POD + segment
    check(path)


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../x", "x/..", "%2e%2E", "x?a=b", "x#", "x y", "wéb", "x\n", "%zz"]
)
def test_an_ambiguous_path_is_rejected(name):
    with pytest.raises(TransportError, match="is not the path of an object, nothing was sent"):
        check(POD + name)


def test_a_path_must_start_with_a_slash():
    with pytest.raises(TransportError):
        check("api/v1")
