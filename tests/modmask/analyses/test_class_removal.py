"""Class removal: confusions before and after, and the layer that is not trained."""

import numpy as np
import pytest

from modmask import phases
from modmask.analyses import class_removal
from shared.groups import Place
from tests.modmask.analyses import small


def run(patch, **changes):
    """Return the analysis of logits at random, and what was to be trained."""
    calls = []
    patch.setattr(phases, "train_stages", small.untrained(calls))
    config = small.config("cifar10_class_removal", **changes)
    networks, place = [small.network()], Place()
    found = class_removal.run(small.problem(), [config], networks, place, 3)
    return found[0], calls


@pytest.fixture(scope="module")
def kept():
    """The analysis with the output layer of the control mask."""
    with pytest.MonkeyPatch.context() as patch:
        return run(patch, keep_last_layer=True)


def test_masks_without_a_class_come_after_the_control(kept):
    found, calls = kept
    assert calls == [
        ("masks", 3, ["baseline"]),
        ("masks-without", 7, ["0", "1", "2"]),
    ]
    assert found.steps == 11
    stages = [found.exports[f"stage_final_masks/stage_{i}"] for i in range(4)]
    assert [str(stage["stage"]) for stage in stages] == ["baseline", "0", "1", "2"]


def test_trained_masks_have_the_output_layer_of_the_control():
    problem, config = (
        small.problem(),
        small.config("cifar10_class_removal", keep_last_layer=True),
    )
    network = small.network()
    control = small.logits(0, network)
    found = phases.train_stages(
        problem,
        [config],
        [network],
        Place(progress=False),
        problem.stages[1:3],
        phase="masks",
        offset=0,
        control=[control],
    )[0]
    for logits in found.values():
        np.testing.assert_array_equal(
            logits["out_layer"]["kernel"], control["out_layer"]["kernel"]
        )
        assert not np.allclose(logits["features"]["0"]["kernel"], config.mask_init)


def test_without_it_all_masks_are_trained_together(monkeypatch):
    found, calls = run(monkeypatch)
    assert calls == [("masks", 3, ["baseline", "0", "1", "2"])]
    assert found.steps == 7
    alone, calls = run(monkeypatch, only_control=True, keep_last_layer=True)
    assert calls == [("masks", 3, ["baseline"])]
    assert not any(key.startswith("class_removal/drop") for key in alone.results)


def test_figures_of_all_removals(kept):
    (results, exports, _), _ = kept
    for c in range(small.CLASSES):
        change = exports[f"class_removal/confusion_difference/{c}"]
        # Each row of a normalised confusion adds up to 1.
        np.testing.assert_allclose(change.sum(axis=1), 0, atol=1e-6)
        for name in ("target", "largest_other", "ratio"):
            assert f"class_removal/drop/{c}/{name}" in results
        assert f"mask_iou/baseline/{c}/total" in results
        assert f"chance_high/mask_iou/baseline/{c}/features_0_weight" in results
    assert "mask_iou/0/1/total" not in results
    assert not any(key.startswith("mask_stat") for key in results)
    assert "half_mask_test/normal/baseline/iter_0/iid/accuracy" in results


def test_changes_of_a_hand_made_confusion():
    before = np.array([[8, 1, 0], [2, 9, 0], [0, 0, 10]])
    after = np.array([[2, 0, 0], [8, 9, 1], [0, 1, 9]])
    figures, exports = class_removal.confusions({"baseline": before, "0": after})
    change = [[-0.6, 0.6, 0], [-0.1, 0, 0.1], [0, 0.1, -0.1]]
    np.testing.assert_allclose(exports["class_removal/confusion_difference/0"], change)
    assert figures == {
        "class_removal/drop/0/target": pytest.approx(75),
        "class_removal/drop/0/largest_other": pytest.approx(10),
        "class_removal/drop/0/ratio": pytest.approx(100 * 10 / 75),
    }
