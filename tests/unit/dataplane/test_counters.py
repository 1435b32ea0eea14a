from userspace_proxy.dataplane import EndpointCounters


def counters(*values):
    made = EndpointCounters()
    for name, value in zip(EndpointCounters.__slots__, values, strict=True):
        setattr(made, name, value)
    return made


def test_every_counter_is_part_of_a_sum():
    total = counters(1, 2, 3, 4, 5, 6)
    total.add(counters(10, 20, 30, 40, 50, 60).figures())
    sums = [getattr(total, name) for name in EndpointCounters.__slots__]
    assert sums == [11, 22, 33, 44, 55, 66]
