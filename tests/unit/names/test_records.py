"""Tests of a record's text, a line of a zone file."""

from userspace_proxy.names import Record, RecordType


def test_a_record_prints_as_a_zone_file_line():
    record = Record("web.shop.svc.cluster.local.", RecordType.A, "10.96.0.10", 5)
    assert str(record) == "web.shop.svc.cluster.local. 5 IN A 10.96.0.10"
