import logging

from userspace_proxy.log_fields import FieldLogger

log = FieldLogger("userspace_proxy.agent")


def test_a_message_includes_the_fields_named_in_its_text(caplog):
    caplog.set_level(logging.INFO)
    fields = {"service": "shop/web", "cause": "100 % full", "count": 3}
    log.warning("%(service)s: not served: %(cause)s", extra=fields)
    (record,) = caplog.records
    assert record.getMessage() == "shop/web: not served: 100 % full"
    assert (record.service, record.cause, record.count) == ("shop/web", "100 % full", 3)
    assert (record.name, record.levelname) == ("userspace_proxy.agent", "WARNING")


def test_a_log_text_without_fields_is_logged_unchanged(caplog):
    caplog.set_level(logging.INFO)
    log.info("stopped")
    log.info("all of 100 % is used")
    log.info("signal %s ignored", "SIGHUP")
    assert caplog.messages == ["stopped", "all of 100 % is used", "signal SIGHUP ignored"]


def test_a_remedy_follows_the_text_in_parentheses(caplog):
    for remedy in ("stop it", ""):
        log.warning("%(port)s is taken", extra={"port": 80, "remedy": remedy})
    assert caplog.messages == ["80 is taken (stop it)", "80 is taken"]


def test_a_record_shows_its_callers_location(caplog):
    caplog.set_level(logging.INFO)
    log.info("stopping", extra={"drain_s": 5})
    try:
        int("no")
    except ValueError:
        log.exception("bug in %(task)s", extra={"task": "sync"})
    assert [record.filename for record in caplog.records] == ["test_log_fields.py"] * 2
    assert caplog.records[1].getMessage() == "bug in sync"
    assert caplog.records[1].exc_info[0] is ValueError
