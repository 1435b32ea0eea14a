"""Tests of encoding and decoding the saved state, and of rejecting all other data."""

import json
import re
import tracemalloc
import zlib
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.cluster import Snapshot, Store, encoding
from userspace_proxy.cluster.encoding import FORMAT, StateOwner, decode_state, encode_state
from userspace_proxy.errors import InputError
from userspace_proxy.model import (
    Balance,
    Endpoint,
    EndpointSlice,
    Handling,
    Hold,
    IPFamily,
    Node,
    Service,
    ServiceKey,
    ServicePort,
    ServiceType,
    SliceKey,
    SlicePort,
)
from userspace_proxy.model.endpoint_names import EndpointName
from userspace_proxy.model.notes import NoteKind

OWNER = StateOwner("kubernetes", "https://192.0.2.10:6443", "node-1", "")
WEB = ServiceKey("shop", "web")
BEGIN = f'{{"format":{FORMAT}}}\n'.encode()


def snapshot(services=1):
    store = Store()
    for i in range(services):
        key = ServiceKey("shop", f"web-{i}")
        store.put_service(
            Service(key, (ServicePort("http", 80, "TCP", 30080),), cluster_ips=("10.96.0.1",))
        )
        store.put_slice(slice_of(key, f"web-{i}-v4"))
    store.set_node(Node("node-1", ("192.0.2.1",), "zone-a", ("10.244.1.0/24",)))
    store.set_node_addresses(frozenset({"192.0.2.2", "192.0.2.1"}))
    return store.snapshot()


def slice_of(key, name):
    return EndpointSlice(
        SliceKey("shop", name),
        key,
        IPFamily.IPV4,
        (SlicePort("http", 8080, "TCP"),),
        (
            Endpoint("10.244.1.5", node="node-1", hinted_zones=("zone-a",)),
            Endpoint("10.244.2.5", ready=False, terminating=True),
        ),
    )


def every_field():
    store = Store()
    store.put_service(
        Service(
            WEB,
            (ServicePort("", 53, "UDP"),),
            type=ServiceType.LOAD_BALANCER,
            cluster_ips=("10.96.0.1", "fd00::1"),
            affinity_timeout_s=10800,
            external_ips=("198.51.100.1",),
            load_balancer_ips=("203.0.113.1",),
            load_balancer_source_ranges=("192.0.2.0/24",),
            health_check_node_port=32000,
            is_internal_local=True,
            is_external_local=True,
            handling=Handling(
                balance=Balance.LEAST_CONNECTIONS,
                keeps_clients=False,
                hold=Hold(60, 16),
                max_connections=100,
                names=(EndpointName("db.example.com", 5432, "sql"),),
                found_by_name=("203.0.113.1",),
            ),
            notes=(
                NoteKind.ANNOTATION_UNKNOWN("café", "", ("a", "b")),
                NoteKind.TOO_MANY_RANGES(2, 1),
            ),
            proxy_name="canary",
            has_headless_label=True,
            external_name="db.example.com",
            created="2026-01-01T00:00:00Z",
        )
    )
    slice_v6 = replace(
        slice_of(WEB, "web-v6"), family=IPFamily.IPV6, endpoints=(Endpoint("fd00::5"),)
    )
    store.put_slice(slice_v6)
    return store.snapshot()


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(Store().snapshot(), id="empty"),
        pytest.param(snapshot(), id="one-service"),
        pytest.param(snapshot(250), id="several-batches"),
        pytest.param(every_field(), id="many-fields"),
    ],
)
def test_an_encoded_snapshot_decodes_to_an_equal_snapshot(given):
    found = decode_state(encode_state(given, OWNER), OWNER)
    assert found == given
    assert found.revision == 0
    assert list(found.services) == list(given.services)


def test_equal_snapshots_encode_to_equal_bytes():
    assert encode_state(snapshot(200), OWNER) == encode_state(snapshot(200), OWNER)


def test_an_encoded_state_has_a_version_a_head_and_one_line_for_each_service():
    """The lines of JSON contain the version, all facts except Services, and each Service."""
    text = zlib.decompress(encode_state(snapshot(2), OWNER), wbits=31).decode()
    version, head, *services = map(json.loads, text.splitlines())
    assert version == {"format": FORMAT}
    assert list(head) == ["of", "node", "node_addresses"]
    assert head["of"] == asdict(OWNER)
    assert head["node"]["pod_networks"] == ["10.244.1.0/24"]
    assert head["node_addresses"] == ["192.0.2.1", "192.0.2.2"]
    assert [each["service"]["key"] for each in services] == [["shop", "web-0"], ["shop", "web-1"]]
    (item,) = services[1]["slices"]
    assert item["key"] == ["shop", "web-1-v4"]
    assert [endpoint["ip"] for endpoint in item["endpoints"]] == ["10.244.1.5", "10.244.2.5"]


@pytest.mark.parametrize(
    ("field", "other", "cause"),
    [
        ("source", "manifests", "its source is 'manifests', and this proxy's is "
            "'kubernetes'"),
        ("location", "https://192.0.2.99:6443", "its location is "
            "'https://192.0.2.99:6443', and this proxy's is 'https://192.0.2.10:6443'"),
        ("node", "node-2", "its node is 'node-2', and this proxy's is 'node-1'"),
        ("proxy_name", "canary", "its proxy_name is 'canary', and this proxy's is ''"),
    ],
)  # fmt: skip
def test_the_state_of_another_proxy_is_rejected(field, other, cause):
    data = encode_state(snapshot(), replace(OWNER, **{field: other}))
    with pytest.raises(InputError) as caught:
        decode_state(data, OWNER)
    assert str(caught.value) == cause


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"", "it is corrupt: Input data was truncated"),
        (b"[]\n", "it is corrupt: Expected `object`, got `array`"),
        # Formats up to 12 were used by an earlier numbering.
        (b'{"format":11}\n', f"its format is 11, and this version reads {FORMAT}"),
        (BEGIN + b"{}\n", "it is corrupt: Object missing required field `of`"),
        (BEGIN + b'{"of":{"source":"\xff"}}', "it is corrupt: "),
    ],
    ids=["empty", "array", "older-format", "no-owner", "invalid-utf-8"],
)  # fmt: skip
def test_a_malformed_state_is_rejected(text, cause):
    with pytest.raises(InputError) as caught:
        decode_state(compressed(text), OWNER)
    assert str(caught.value).startswith(cause)


def compressed(text):
    compressor = zlib.compressobj(wbits=31)
    return compressor.compress(text) + compressor.flush()


def test_a_value_of_a_wrong_type_is_rejected():
    text = zlib.decompress(encode_state(snapshot(), OWNER), wbits=31)
    with pytest.raises(InputError, match="it is corrupt: Expected `int`, got `str`"):
        decode_state(compressed(text.replace(b":8080", b':"http"')), OWNER)


@pytest.mark.parametrize(
    ("valid", "invalid", "cause"),
    [
        ("10.96.0.1", "10.96.0.256", "'10.96.0.256' is not an IP address"),
        ('"192.0.2.1"', '"192.0.2.01"', "'192.0.2.01' is not an IP address"),
        ('"192.0.2.2"', '"192.0.2"', "'192.0.2' is not an IP address"),
        ("10.244.2.5", r"10.244.2.5\n", r"'10.244.2.5\n' is not an IP address"),
        ("10.96.0.1", "FD00::1", "'FD00::1' is not in canonical form"),
        ("10.244.1.5", "fd00::1", "'fd00::1' is not an IPv4 address"),
        ("10.244.1.0/24", "10.244.1.0/255.255.255.0", "is not in canonical form"),
        ("10.244.1.0/24", "10.244.1.1/24", "has host bits set"),
        ("30080", "-1", "-1 is not a port"),
        ("8080", "65536", "65536 is not a port"),
        ('"weight":100', '"weight":-1', "'10.244.1.5' has a weight or priority beyond 65535"),
    ],
)
def test_an_invalid_value_is_rejected_despite_a_correct_checksum(valid, invalid, cause):
    text = zlib.decompress(encode_state(snapshot(), OWNER), wbits=31)
    assert valid.encode() in text
    with pytest.raises(InputError, match=re.escape(cause)) as raised:
        decode_state(compressed(text.replace(valid.encode(), invalid.encode())), OWNER)
    assert str(raised.value).startswith("it is corrupt: ")


@pytest.mark.parametrize(
    ("valid", "invalid", "cause"),
    [
        ("[2,1]", "[2]", "too_many_ranges: too_many_ranges takes count, limit"),
        ("[2,1]", '["x",1]', "Cannot specify ',' with 's'"),
        ("too_many_ranges", "too_many_cooks", "Invalid enum value 'too_many_cooks'"),
    ],
)
def test_a_note_that_cannot_be_rendered_is_rejected(valid, invalid, cause):
    text = zlib.decompress(encode_state(every_field(), OWNER), wbits=31)
    assert valid.encode() in text
    with pytest.raises(InputError, match=re.escape(cause)):
        decode_state(compressed(text.replace(valid.encode(), invalid.encode())), OWNER)


@given(st.binary())
def test_arbitrary_bytes_are_rejected(data):
    with pytest.raises(InputError):
        decode_state(data, OWNER)


@given(st.binary())
def test_arbitrary_text_is_rejected(text):
    for prefix in (b"", BEGIN):
        with pytest.raises(InputError):
            decode_state(compressed(prefix + text), OWNER)


@given(st.data())
def test_a_truncated_state_is_rejected(data):
    whole = encode_state(snapshot(), OWNER)
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(InputError, match="it is corrupt: it is incomplete"):
        decode_state(part, OWNER)


@given(st.data())
def test_a_corrupted_byte_does_not_decode_to_another_state(data):
    whole = bytearray(encode_state(snapshot(), OWNER))
    # The first ten bytes are the gzip header, most of which has no effect.
    at = data.draw(st.integers(10, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_state(bytes(whole), OWNER)
    except InputError:
        return
    # A changed bit in the padding at the end of the compressed text has no effect.
    assert found == snapshot()


def test_trailing_bytes_are_rejected():
    with pytest.raises(InputError, match="something follows its end"):
        decode_state(encode_state(snapshot(), OWNER) + b"more", OWNER)


def test_the_size_of_a_state_is_limited(monkeypatch):
    data = encode_state(snapshot(), OWNER)
    monkeypatch.setattr(encoding, "TEXT_BYTES_MAX", 500)
    with pytest.raises(InputError, match="the state is larger than 0 MiB"):
        encode_state(snapshot(), OWNER)
    with pytest.raises(InputError, match="it is larger than 0 MiB"):
        decode_state(data, OWNER)


@pytest.mark.long
@pytest.mark.parametrize("most", ["endpoints", "ports", "slice-ports"])
def test_encoding_an_oversized_state_has_a_low_memory_peak(most):
    """A few large Services make up most of the state."""
    (usual,) = snapshot().services.values()
    (of_two,) = usual.slices
    large = {
        "endpoints": replace(
            usual, slices=100 * (replace(of_two, endpoints=500 * of_two.endpoints),)
        ),
        "ports": replace(usual, service=replace(usual.service, ports=20_000 * usual.service.ports)),
        "slice-ports": replace(usual, slices=(replace(of_two, ports=20_000 * of_two.ports),)),
    }[most]
    each = len(encoding._encoder.encode((large.service, tuple(large.slices))))
    keys = [
        ServiceKey("shop", f"{number}") for number in range(2 * encoding.TEXT_BYTES_MAX // each)
    ]
    tracemalloc.start()
    with pytest.raises(InputError, match="the state is larger than 256 MiB"):
        encode_state(Snapshot(dict.fromkeys(keys, large)), OWNER)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < encoding.TEXT_BYTES_MAX / 2


@pytest.mark.parametrize("nodes", [None, frozenset(), frozenset({"192.0.2.1"})])
def test_unknown_empty_and_known_node_addresses_survive_encoding(nodes):
    given = Snapshot({}, node_addresses=nodes)
    found = decode_state(encode_state(given, OWNER), OWNER)
    assert (found.node, found.node_addresses) == (None, nodes)
