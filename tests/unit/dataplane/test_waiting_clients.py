from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.dataplane.waiting_clients import WaitingClients


class Place:
    def __init__(self, client_ip):
        self.client_ip = client_ip


def filled(*clients):
    waiting = WaitingClients()
    places = [Place(client) for client in clients]
    for place in places:
        waiting.add(place)
    return waiting, places


def test_the_oldest_place_of_the_client_with_the_most_ends():
    waiting, places = filled("lone", "many", "many", "few", "many", "few")
    assert waiting.to_end("new") is places[1]
    waiting.remove(places[1])
    waiting.remove(places[2])
    assert waiting.to_end("new") is places[3]


def test_a_client_that_would_have_the_most_ends_one_of_its_own():
    waiting, places = filled("one", "two", "one", "two")
    assert waiting.to_end("two") is places[1]


def test_of_lone_clients_the_first_one_ends():
    waiting, places = filled("one", "two", "three")
    assert waiting.to_end("four") is places[0]


def test_a_place_may_be_older_than_those_that_were_added_before():
    waiting, _ = filled("one", "one")
    older = Place("one")
    waiting.add(older, is_first=True)
    assert waiting.to_end("two") is older


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_a_client_with_fewer_places_never_loses_one(changes):
    waiting, places = WaitingClients(), []
    for client, is_removal in changes:
        if is_removal and places:
            waiting.remove(places.pop(len(places) // 2))
        else:
            places.append(Place(client))
            waiting.add(places[-1])
        if places:
            owners = [place.client_ip for place in places]
            loser = waiting.to_end("new").client_ip
            assert owners.count(loser) == max(map(owners.count, owners))
