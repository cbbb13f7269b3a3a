"""Checks for tower adapters. The adapters of cliplens and of other packages must pass the same checks.

    from cliplens.testing import check_adapter

    def test_my_adapter():
        check_adapter(MyTower(), tiny_model_of_my_family(), "vision")

`check_adapter` opens a tower and runs all checks. Each check is also a function of its own.
"""

from cliplens.testing.adapters import check_adapter as check_adapter
from cliplens.testing.adapters import check_tower as check_tower
from cliplens.testing.adapters import example_inputs as example_inputs
from cliplens.testing.adapters import fingerprint as fingerprint
from cliplens.testing.checks import CHECKS as CHECKS
from cliplens.testing.checks import bad_use_is_refused as bad_use_is_refused
from cliplens.testing.checks import dtype_and_device_moves_work as dtype_and_device_moves_work
from cliplens.testing.checks import every_hook_fires as every_hook_fires
from cliplens.testing.checks import everything as everything
from cliplens.testing.checks import gradients_are_the_stock_models as gradients_are_the_stock_models
from cliplens.testing.checks import hooked_equals_stock as hooked_equals_stock
from cliplens.testing.checks import hooks_leave_no_trace as hooks_leave_no_trace
from cliplens.testing.checks import residual_stream_adds_up as residual_stream_adds_up
from cliplens.testing.checks import stopping_equals_a_truncated_forward as stopping_equals_a_truncated_forward
from cliplens.testing.checks import unhooked_equals_stock as unhooked_equals_stock
from cliplens.testing.checks import writes_are_true_edits as writes_are_true_edits
from cliplens.testing.checks import writes_reach_the_output as writes_reach_the_output
from cliplens.testing.comparing import TowerCheckError as TowerCheckError
from cliplens.testing.declared import DECLARED as DECLARED
from cliplens.testing.declared import leading_positions_are_special as leading_positions_are_special
from cliplens.testing.declared import projections_are_in_order as projections_are_in_order
from cliplens.testing.declared import widths_are_declared as widths_are_declared
