"""Gradient cosine: gradients over all rows, with more and more layers masked."""

import jax
import numpy as np
import pytest

from modmask import phases
from modmask.analyses import cosine, outcome
from modmask.find import cross_entropy
from shared.groups import Place
from tests.modmask.analyses import small


def gradient(masks, batch, network):
    problem = small.problem()
    data = problem.valid["iid"]
    return cosine.total_gradient(problem.task, network, data, batch, (), masks)


def test_gradients_of_batches_add_up():
    network = small.network()
    whole = gradient(None, small.ROWS, network)
    halves = gradient(None, small.ROWS // 2, network)
    parts = zip(jax.tree.leaves(whole), jax.tree.leaves(halves), strict=True)
    for one, two in parts:
        np.testing.assert_allclose(2 * one, two, rtol=1e-4, atol=1e-6)
    forward = lambda x: small.model().apply(network, x)[0]
    loss = cross_entropy(forward, small.arrays(), jax.random.key(0), ())[0]
    shifted = network._replace(
        params=jax.tree.map(lambda p, g: p - 1e-2 * g, network.params, whole)
    )
    forward = lambda x: small.model().apply(shifted, x)[0]
    assert cross_entropy(forward, small.arrays(), jax.random.key(0), ())[0] < loss


def test_layers_are_masked_from_the_output_down():
    names = ["features_0_bias", "features_0_weight", "features_10_weight"]
    names += ["features_3_weight", "out_layer_weight", "out_layer_bias"]
    assert cosine.from_output(names) == [
        ("out_layer_bias", "out_layer_weight"),
        ("features_10_weight",),
        ("features_3_weight",),
        ("features_0_bias", "features_0_weight"),
    ]


def test_masks_turn_the_gradient_only_where_they_act():
    network = small.network()
    keep = small.like(small.logits(0, network), 1.0)
    masks = outcome.masks_of(keep, network.params)
    found = cosine.compare(small.problem(), network, masks, 20)
    assert len({key.split("/")[1] for key in found}) == 4
    assert all(value == pytest.approx(1, abs=1e-5) for value in found.values())
    random = outcome.masks_of(small.logits(0, network), network.params)
    found = cosine.compare(small.problem(), network, random, 20)
    assert found["cos_distance/0/total"] == pytest.approx(1, abs=1e-5)
    for i in (1, 2, 3):
        assert found[f"cos_distance/{i}/total"] < 0.999


def test_one_mask_is_trained_on_the_last_stage(monkeypatch):
    calls = []
    monkeypatch.setattr(phases, "train_stages", small.untrained(calls))
    problem, config = small.problem(), small.config("cifar10_grad_cosine")
    place = Place()
    networks = [small.network()]
    found = cosine.run(problem, [config], networks, place, 5)[0]
    assert calls == [("masks", 5, ["2"])]
    assert found.steps == 5 + config.mask_steps
    assert list(found.exports) == ["stage_final_masks/stage_0"]
    assert str(found.exports["stage_final_masks/stage_0"]["stage"]) == "2"
    assert "cos_distance/3/features_0_weight" in found.results
