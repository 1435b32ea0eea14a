import pytest

from userspace_proxy_testing.fakes.api_pods import write_pod

POD = {"metadata": {"name": "web-1", "uid": "1"}, "spec": {}, "status": {"phase": "Pending"}}


def after(method, body, before=POD):
    code, pod = write_pod(method, before, body, uid="new")
    assert code == 200
    return pod


def test_a_new_pod_has_a_uid():
    code, pod = write_pod("POST", None, {"metadata": {"name": "web-1"}}, uid="new")
    assert (code, pod["metadata"]["uid"]) == (201, "new")


@pytest.mark.parametrize(
    ("method", "before", "body", "code"),
    [
        pytest.param("POST", POD, {"metadata": {"name": "web-1"}}, 409, id="existing"),
        pytest.param("PATCH", None, {}, 404, id="missing"),
    ],
)
def test_creating_an_existing_pod_or_patching_a_missing_pod_is_rejected(method, before, body, code):
    assert write_pod(method, before, body, uid="new") == (code, before)


def test_a_status_may_be_replaced_and_an_annotation_may_be_removed():
    metadata = {**POD["metadata"], "annotations": {"a": "1", "b": "2"}}
    before = {**POD, "metadata": metadata, "status": {"phase": "Running", "podIP": "127.0.0.2"}}
    patch = {
        "metadata": {"annotations": {"a": None}},
        "status": {"$patch": "replace", "phase": "Pending"},
    }
    pod = after("PATCH", patch, before)
    assert pod["status"] == {"phase": "Pending"}
    assert pod["metadata"]["annotations"] == {"b": "2"}


def test_a_patch_merges_annotations_and_conditions():
    before = {
        **POD,
        "metadata": {**POD["metadata"], "annotations": {"a": "1"}},
        "status": {"conditions": [{"type": "Ready", "status": "False"}]},
    }
    patch = {
        "metadata": {"annotations": {"b": "2"}},
        "status": {
            "podIP": "127.0.0.2",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "New", "status": "True"}],
        },
    }
    pod = after("PATCH", patch, before)
    assert pod["metadata"]["annotations"] == {"a": "1", "b": "2"}
    assert pod["status"]["podIP"] == "127.0.0.2"
    assert [c["status"] for c in pod["status"]["conditions"]] == ["True", "True"]


def test_addresses_are_added_unless_a_patch_replaces_them():
    before = {**POD, "status": {"podIPs": [{"ip": "10.0.0.1"}]}}
    added = after("PATCH", {"status": {"podIPs": [{"ip": "10.0.0.2"}]}}, before)
    assert added["status"]["podIPs"] == [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]
    replacing = {"podIPs": [{"ip": "10.0.0.2"}, {"$patch": "replace"}]}
    assert after("PATCH", {"status": replacing}, before)["status"]["podIPs"] == [{"ip": "10.0.0.2"}]


def test_a_pod_without_a_node_is_deleted_immediately():
    assert after("DELETE", {}) is None


def test_a_pod_on_a_node_terminates_until_removed_by_kubelet_or_user():
    running = {**POD, "spec": {"nodeName": "node-1"}}
    assert "deletionTimestamp" in after("DELETE", {}, running)["metadata"]
    assert after("DELETE", {"gracePeriodSeconds": 0}, running) is None


def test_a_pod_terminates_until_its_last_finalizer_is_removed():
    kept = after("PATCH", {"metadata": {"finalizers": ["tests"]}})
    ending = after("DELETE", {"gracePeriodSeconds": 0}, kept)
    assert "deletionTimestamp" in ending["metadata"]
    without = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["tests"]}}
    assert after("PATCH", without, ending) is None
