import tlkit_lenet

from tlkit.testing import checks_for


@checks_for(tlkit_lenet.lenet_rgb)
def test_contract(check):
    check()
