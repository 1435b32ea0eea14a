"""The most recent connections of each Service."""

import logging
import threading
import time

from userspace_proxy.model import ServiceKey
from userspace_proxy_testing.decisions import KEPT, LOGGER, Decision, Decisions, FailedDial

WEB = ServiceKey("default", "web")


def log(service="default/web", endpoint="127.0.0.1:8080", outcome="complete", failed=""):
    logging.getLogger(LOGGER).info(
        "connection ended",
        extra={
            "service": service,
            "client": "127.0.0.1:40000",
            "endpoint": endpoint,
            "cause": outcome,
            "received_bytes": 7,
            "sent_bytes": 9,
            "dials": 1,
            "duration_s": 0.25,
            "ended_by": "endpoint",
            "failed": failed,
        },
    )


def test_only_the_most_recent_connections_of_each_service_are_kept():
    decisions = Decisions()
    decisions.begin(threading.get_ident())
    for number in range(KEPT + 2):
        log(endpoint=f"127.0.0.1:{number}")
    for port in ("", ":http"):
        log(f"default/other{port} (IPv6)")
    decisions.end()
    log()
    assert [d.endpoint for d in decisions.of(WEB)] == [
        f"127.0.0.1:{number}" for number in range(2, KEPT + 2)
    ]
    assert len(decisions.of(ServiceKey("default", "other"))) == 2
    assert decisions.of(ServiceKey("default", "none")) == ()
    last = decisions.of(WEB)[-1]
    assert (last.received_bytes, last.sent_bytes) == (7, 9)
    assert last.began_at < time.time() - 0.2


def test_the_logger_is_restored_after_recording():
    logger = logging.getLogger(LOGGER)
    before = logger.level, list(logger.filters)
    decisions = Decisions()
    decisions.begin(threading.get_ident())
    decisions.end()
    decisions.end()
    assert (logger.level, logger.filters) == before


def test_decisions_are_recorded_even_if_logging_disables_the_logger(monkeypatch):
    logger = logging.getLogger(LOGGER)
    # dictConfig and fileConfig disable each logger that they don't name.
    monkeypatch.setattr(logger, "disabled", True)
    decisions = Decisions()
    decisions.begin(threading.get_ident())
    log()
    decisions.end()
    assert len(decisions.of(WEB)) == 1
    assert logger.disabled


def test_the_logger_has_level_info_after_a_recording_begins_while_another_ends(monkeypatch):
    logger = logging.getLogger(LOGGER)
    first, second = Decisions(), Decisions()
    first.begin(1)
    set_level, ends, begun = logger.setLevel, threading.Event(), threading.Event()

    def slow(level):
        ends.set()
        if threading.current_thread() is ending:
            # The other thread must wait; otherwise its recording would begin immediately.
            begun.wait(0.1)
        set_level(level)

    monkeypatch.setattr(logger, "setLevel", slow)
    ending = threading.Thread(target=first.end)
    ending.start()
    ends.wait(60)
    second.begin(2)
    begun.set()
    ending.join()
    assert logger.level == logging.INFO
    second.end()


def test_failed_dials_are_recorded_with_their_causes():
    decisions = Decisions()
    decisions.begin(threading.get_ident())
    log(failed="127.0.0.2:80 endpoint-refuses, [::1]:80 fault-on-purpose")
    log()
    decisions.end()
    first, second = decisions.of(WEB)
    assert first.failed_dials == [
        FailedDial("127.0.0.2:80", "endpoint-refuses"),
        FailedDial("[::1]:80", "fault-on-purpose"),
    ]
    assert (second.failed_dials, second.ended_by) == ([], "endpoint")


def test_a_decision_is_formatted_as_one_line():
    decision = Decision("127.0.0.1:40000", "127.0.0.1:80", "complete", 1, 0.25, 7, 9)
    assert str(decision) == "127.0.0.1:40000 → 127.0.0.1:80: complete, 7 B in, 9 B out, 0.250 s"
    unanswered = Decision("127.0.0.1:40000", "", "unanswered", 2, 0, 0, 0)
    assert str(unanswered).startswith("127.0.0.1:40000 → no endpoint at dial 2: unanswered")


def test_kept_log_records_are_not_propagated(caplog):
    decisions = Decisions()
    decisions.begin(threading.get_ident())
    log()
    decisions.end()
    assert len(decisions.of(WEB)) == 1
    assert caplog.records == []


def test_log_records_of_another_thread_are_propagated_and_not_kept(caplog):
    decisions = Decisions()
    decisions.begin(threading.get_ident())
    thread = threading.Thread(target=log)
    thread.start()
    thread.join()
    decisions.end()
    assert decisions.of(WEB) == ()
    assert [record.thread for record in caplog.records] == [thread.ident]


def test_the_logger_is_restored_after_the_last_recording_ends():
    logger = logging.getLogger(LOGGER)
    before = logger.level
    first, second = Decisions(), Decisions()
    first.begin(1)
    second.begin(2)
    first.end()
    assert logger.level == logging.INFO
    second.end()
    assert logger.level == before
