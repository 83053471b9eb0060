"""Testing: how the author of a plugin knows that it works, and what to test the rest with.

    from tlkit.testing import check_row, checks_for

    @checks_for(my_package.my_net)          # one test for each law in CHECKS
    def test_contract(check): check()

    def test_head(): check_row(my_package.my_head)

In: a `Backbone`, or a row of a table: a head, a test-time policy, an augmentation preset. Out:
nothing, or a `PluginError` that says which law is broken.
"""

from tlkit.testing.backbones import CHECKS, check_backbone, checks_for
from tlkit.testing.rows import check_row
from tlkit.testing.samples import TINY, make_folder

__all__ = ["CHECKS", "TINY", "check_backbone", "check_row", "checks_for", "make_folder"]
