import json

from userspace_proxy.model import Handling, Hold, ServiceKey
from userspace_proxy.status.demand import demand_of, render_demand

from .views import make_port, make_view

HOLDING = Handling(hold=Hold(60.0))


def view():
    ports = (make_port("web", handling=HOLDING), make_port("api", handling=HOLDING), make_port("b"))
    return make_view(*ports, demand={ServiceKey("shop", "web"): 3})


def test_each_service_that_holds_has_its_demand_or_0():
    assert demand_of(view()) == {ServiceKey("shop", "api"): 0, ServiceKey("shop", "web"): 3}


def test_an_autoscaler_finds_the_number_by_namespace_and_name():
    assert json.loads(render_demand(view())) == {"demand": {"shop": {"api": 0, "web": 3}}}


def test_the_sums_of_all_nodes_follow_where_they_are_known():
    one = view()
    one.cluster_demand = {ServiceKey("shop", "web"): 7, ServiceKey("live", "api"): 0}
    assert json.loads(render_demand(one)) == {
        "demand": {"shop": {"api": 0, "web": 3}},
        "cluster": {"shop": {"web": 7}, "live": {"api": 0}},
    }
