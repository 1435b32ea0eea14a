import contextlib

from userspace_proxy.plane.rendezvous import connect_to_workers, open_rendezvous, worker_labels


def test_workers_are_found_by_the_label_of_their_proxy():
    with contextlib.ExitStack() as stack:
        # A label is no pattern: a dot is a dot.
        for label in ("", "a.b", "a.b", "aXb"):
            stack.enter_context(open_rendezvous(label))
        found = {label: connect_to_workers(label) for label in ("", "a.b", "aXb", "other")}
        for sock in (sock for socks in found.values() for sock in socks):
            stack.enter_context(sock)
        assert {label: len(socks) for label, socks in found.items()} == {
            "": 1,
            "a.b": 2,
            "aXb": 1,
            "other": 0,
        }
        assert worker_labels() == {"", "a.b", "aXb"}
    assert worker_labels() == set()
    assert connect_to_workers("a.b") == []
