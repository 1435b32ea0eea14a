from userspace_proxy.balance import Weights

from ..model.samples import POD_A, POD_B


def test_endpoints_without_a_weight_have_the_default():
    weights = Weights({POD_A: 5})
    assert (weights.of(POD_A), weights.of(POD_B)) == (5, 100)
    assert weights
    assert not Weights()


def test_its_version_grows_with_a_change_only():
    weights = Weights({POD_A: 5})
    weights.configure({POD_A: 5})
    assert weights.version == 0
    weights.configure({POD_A: 6})
    assert (weights.version, weights.of(POD_A)) == (1, 6)
