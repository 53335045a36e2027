"""The small reference runs: masks find what is known about these networks."""

import numpy as np
import pytest

from modmask import results, train
from modmask.experiments import EXPERIMENTS
from shared import runs
from shared.config import to_dict

pytestmark = pytest.mark.usefixtures("optimised")


def learned(tmp_path, name, choose=lambda config: True):
    """Run the members of an experiment that are chosen; return their results."""
    configs = [config for config in EXPERIMENTS[name].configs if choose(config)]
    found = []
    for i, config in enumerate(configs):
        options = {"data_dir": None, "dtype": "float32"}
        with runs.create(
            tmp_path / str(i), "modmask", name, to_dict(config), options
        ) as run:
            train.train([config], run=run, progress=False)
        found.append(results.read(run.path))
    return found


@pytest.mark.slow
def test_addition_and_multiplication_come_apart(tmp_path):
    (found,) = learned(tmp_path, "reference_addmul_feedforward")
    accuracy = lambda kind, mask, op: found[f"{kind}/{mask}/{op}/accuracy"]
    for op, other in (("add", "mul"), ("mul", "add")):
        assert accuracy("analysis_results", "network", op) >= 0.98
        assert accuracy("analysis_results", "verify", op) >= 0.98
        assert accuracy("analysis_results", op, op) >= 0.98
        # Sum and product of so many pairs of digits end in the same digit.
        assert 0.02 <= accuracy("analysis_results", op, other) <= 0.06
        for shown in (op, other):
            assert accuracy("inverse_mask_test", op, shown) <= 0.20


@pytest.mark.slow
def test_two_additions_share_no_weight_at_input_and_output(tmp_path):
    (found,) = learned(tmp_path, "reference_tuple_feedforward")
    accuracy = lambda kind, mask, i: found[f"{kind}/{mask}/iid/accuracy/tuple/{i}"]
    for i in range(2):
        own, other = str(i + 1), 1 - i
        assert accuracy("analysis_results", "0", i) >= 0.98
        assert accuracy("analysis_results", own, i) >= 0.98
        assert 0.05 <= accuracy("analysis_results", own, other) <= 0.16
        # What the module of one addition leaves still does the other.
        assert accuracy("inverse_mask_test", own, other) >= 0.98
        assert 0.05 <= accuracy("inverse_mask_test", own, i) <= 0.16
    for layer in ("layers_0_weight", "layers_2_weight"):
        assert found[f"mask_iou/1/2/{layer}"] == 0
    middle = "mask_iou/1/2/layers_1_weight"
    assert found[middle] > found[f"chance_high/{middle}"]
    assert np.isclose(found[middle], 0.42, atol=0.15)
