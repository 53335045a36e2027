"""Mask stability: two masks of each sub-task, and how much they have in common."""

import numpy as np
import pytest

from modmask import phases, statistics
from modmask.analyses import outcome, stability
from modmask.masks import Member
from modmask.task import Stage
from shared.groups import Place
from tests.modmask.analyses import small

PLACE = Place(progress=False)


def config(**changes):
    return small.config("cifar10_mask_stability", **changes)


def test_masks_of_a_sub_task_differ_but_for_the_last_layer(monkeypatch):
    monkeypatch.setattr(phases, "train_stages", small.untrained([]))
    networks = [small.network(0), small.network(1)]
    configs = [config(keep_last_layer=True), config(keep_last_layer=True, seed=1)]
    found = stability.run(small.problem(), configs, networks, PLACE, 0)
    results, exports, steps = found[1]
    assert steps == 2 * configs[0].mask_steps
    stages = [exports[f"stage_final_masks/stage_{i}"] for i in range(7)]
    names = [str(stage["stage"]) for stage in stages]
    assert names == ["baseline", "0/0", "0/1", "1/0", "1/1", "2/0", "2/1"]
    first, second = stages[1:3]
    assert not np.array_equal(first["features_0_weight"], second["features_0_weight"])
    assert np.array_equal(first["out_layer_weight"], stages[0]["out_layer_weight"])
    assert np.array_equal(first["out_layer_weight"], second["out_layer_weight"])
    ious = [results[f"masks_stability/{c}/iou"] for c in range(3)]
    assert results["masks_stability/average_iou"] == pytest.approx(np.mean(ious))
    low, mean, high = (
        results[f"{kind}/masks_stability/0/iou"]
        for kind in ("chance_low", "chance", "chance_high")
    )
    assert low <= mean <= high
    other = found[0].exports["stage_final_masks/stage_1"]
    assert not np.array_equal(first["features_0_weight"], other["features_0_weight"])


def test_layers_that_are_not_trained_do_not_count():
    network = small.network()
    one, two = small.logits(1, network), small.logits(2, network)
    two["out_layer"] = one["out_layer"]
    stages = [Stage("pair_0_1")]
    compared = []
    for keep in (False, True):
        own = config(keep_last_layer=keep)
        members = stability.pairs_of_members(own, network, stages, one)
        found = stability.compare(stages, members, [one, two], network.params)
        compared.append(found["masks_stability/pair_0_1/iou"])
    masks = [outcome.masks_of(logits, network.params) for logits in (one, two)]
    assert compared[0] == pytest.approx(statistics.total_iou(masks))
    features = [{"features": mask["features"]} for mask in masks]
    assert compared[1] == pytest.approx(statistics.total_iou(features))
    assert compared[1] < compared[0]


def test_equal_masks_are_stable():
    network = small.network()
    logits = small.logits(1, network)
    stages = [Stage("a")]
    members = [Member(config(), network, stage, logits) for stage in stages * 2]
    found = stability.compare(stages, members, [logits, logits], network.params)
    assert found["masks_stability/average_iou"] == 1
    assert found["chance/masks_stability/average_iou"] < 0.5


def test_seeds_differ_between_masks_and_repetitions():
    network, stages = small.network(), [Stage("a"), Stage("b")]
    seeds = [
        member.config.seed
        for seed in (0, 1)
        for member in stability.pairs_of_members(
            config(seed=seed), network, stages, small.logits(0, network)
        )
    ]
    assert len(set(seeds)) == 8
