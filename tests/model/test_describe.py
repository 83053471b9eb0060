"""Describing a backbone."""

from tlkit.model.describe import describe
from tlkit.plugins import choose
from tlkit.testing import TINY
from tlkit.weights import obtain


def test_numbers_are_those_of_the_built_network():
    network = TINY.build(obtain(TINY.weights(), "default"))
    about = describe(TINY)
    features = sum(one.numel() for one in network.features.parameters())
    assert about.features == features == sum(about.stages.values())
    assert about.parameters == features + sum(
        one.numel() for one in network.classifier.parameters()
    )
    assert list(about.stages) == list(network.stages)
    assert (about.width, about.classifier) == (16, "classifier 16 -> 5")


def test_vgg16_has_the_parameters_of_the_paper():
    # 138 million (Simonyan and Zisserman 2014, table 2), to the last one as torchvision counts.
    assert describe(choose("vgg16").backbone).parameters == 138_357_544
