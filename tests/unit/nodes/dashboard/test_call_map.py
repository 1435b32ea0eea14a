from userspace_proxy_kubectl.nodes.dashboard.call_map import (
    CLIENTS_MAX,
    ENDPOINTS_MAX,
    SERVICES_MAX,
    Calling,
    Item,
    Line,
    place,
)


def items(name, count):
    return [Item(f"{name}-{n:03}") for n in range(count)]


def a_chain(count):
    """Return this many clients, Services and endpoints, connected one to one."""
    clients, services, endpoints = (items(name, count) for name in ("c", "s", "e"))
    calls = [Line(a.name, b.name, 9) for a, b in zip(clients, services, strict=True)]
    serves = [Line(a.name, b.name, 9) for a, b in zip(services, endpoints, strict=True)]
    return Calling(clients, services, endpoints, calls, serves)


def test_clients_services_and_endpoints_are_three_columns():
    drawn = place(a_chain(2))
    columns = {}
    for one in drawn.items:
        columns.setdefault(one.x, []).append(one.label)
    assert list(columns.values()) == [["c-000", "c-001"], ["s-000", "s-001"], ["e-000", "e-001"]]
    assert len(drawn.lines) == 4
    assert [words for _, words in drawn.heads] == ["Clients", "Services", "Endpoints"]


def test_lines_of_the_call_map_start_and_end_at_their_items():
    drawn = place(a_chain(1))
    client, service, _ = drawn.items
    assert drawn.lines[0].path.startswith(f"M300 {client.y}C")
    assert drawn.lines[0].path.endswith(f" {service.x} {service.y}")


def test_a_line_with_more_connections_is_thicker_up_to_a_limit():
    calling = a_chain(3)
    calls = [Line(f"c-{n:03}", f"s-{n:03}", 10 ** (9 * n)) for n in range(3)]
    drawn = place(Calling(calling.clients, calling.services, (), calls, ()))
    widths = [one.width for one in drawn.lines]
    assert widths == sorted(widths)
    assert widths[-1] == 6.0


def test_connected_items_of_the_call_map_are_placed_at_similar_heights():
    clients, services = items("c", 3), items("s", 3)
    crossed = [Line("c-000", "s-002", 1), Line("c-001", "s-001", 1), Line("c-002", "s-000", 1)]
    drawn = place(Calling(clients, services, (), crossed, ()))
    assert [one.label for one in drawn.items[:3]] == ["c-002", "c-001", "c-000"]


def test_the_number_of_drawn_items_is_bounded_and_omitted_items_are_counted():
    calling = a_chain(100)
    more = items("x", 200)
    calls = [*calling.calls, *(Line(one.name, "s-000", 1) for one in more)]
    serves = [*calling.serves, *(Line("s-000", one.name, 1) for one in more)]
    drawn = place(
        Calling(
            [*calling.clients, *more], calling.services, [*calling.endpoints, *more], calls, serves
        )
    )
    assert len(drawn.items) == CLIENTS_MAX + SERVICES_MAX + ENDPOINTS_MAX
    # A client that only calls omitted Services isn't counted as omitted.
    assert drawn.left_out == {
        "client": SERVICES_MAX + 200 - CLIENTS_MAX,
        "Service": 100 - SERVICES_MAX,
        "endpoint": SERVICES_MAX + 200 - ENDPOINTS_MAX,
    }


def test_a_long_name_is_shortened_and_keeps_its_end():
    name = "shop/a-deployment-with-a-very-long-name-7d9fbc6b58-x2x9z"
    drawn = place(Calling((), [Item(name)], (), (), ()))
    assert len(drawn.items[0].label) == 38
    assert drawn.items[0].label.endswith("…me-7d9fbc6b58-x2x9z")


def test_an_empty_call_map_has_a_positive_height():
    drawn = place(Calling((), (), (), (), ()))
    assert (drawn.items, drawn.lines, drawn.left_out) == ((), (), {})
    assert drawn.height > 0
