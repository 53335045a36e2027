"""Figures on masks and confusions, by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask import statistics
from shared import masking
from shared.errors import UsageError


def tree(kernel, bias=None):
    """Return the masks of a network with one layer."""
    layer = {"kernel": jnp.array(kernel, bool)}
    layer["bias"] = None if bias is None else jnp.array(bias, bool)
    return {"layers": [layer]}


@pytest.fixture
def masks():
    """Three masks: the first keeps 3 + 1 weights, the others 2 + 2 and 2 + 0."""
    return [
        tree([[1, 1], [1, 0]], [1, 0]),
        tree([[1, 0], [0, 1]], [1, 1]),
        tree([[1, 0], [1, 0]], [0, 0]),
    ]


def test_counts_sizes_and_densities(masks):
    names = {"layers_0_weight", "layers_0_bias", "total"}
    assert statistics.counts(masks[0]) == {
        "layers_0_weight": 3,
        "layers_0_bias": 1,
        "total": 4,
    }
    assert statistics.sizes(masks[0])["total"] == 6
    found = statistics.densities(masks[0])
    assert set(found) == names
    assert found["layers_0_weight"] == 3 / 4
    assert found["total"] == pytest.approx(4 / 6)
    figures = statistics.kept({"control": masks[0], "a": masks[2]})
    assert figures["count/a/total"] == 2
    assert figures["density/a/layers_0_bias"] == 0


def test_iou_and_iomin_by_hand_and_symmetric(masks):
    a, b, _ = masks
    found = statistics.iou(a, b)
    assert found["layers_0_weight"] == pytest.approx(1 / 4)
    assert found["layers_0_bias"] == pytest.approx(1 / 2)
    assert found["total"] == pytest.approx(2 / 6)
    found = statistics.iomin(a, b)
    assert found["layers_0_weight"] == pytest.approx(1 / 2)
    assert found["total"] == pytest.approx(2 / 3)
    for figure in (statistics.iou, statistics.iomin):
        assert figure(a, b) == figure(b, a)
        assert set(figure(a, a).values()) == {1.0}
    assert statistics.iou(a, masking.invert(a))["total"] == 0
    similar = statistics.similarity({"x": a, "y": b, "z": masks[2]})
    assert similar["mask_iou/x/y/total"] == pytest.approx(2 / 6)
    assert "mask_iomin/y/z/layers_0_bias" in similar
    only = statistics.similarity({"x": a, "y": b, "z": masks[2]}, [("x", "z")])
    assert {name.rsplit("/", 1)[0] for name in only} == {
        "mask_iou/x/z",
        "mask_iomin/x/z",
    }


def test_iou_of_several_masks_takes_all_together(masks):
    # Only one weight is in all three; every weight is in one of them.
    assert statistics.total_iou(masks) == pytest.approx(1 / 6)
    assert statistics.total_iou(masks[:2]) == statistics.iou(*masks[:2])["total"]
    with pytest.raises(UsageError, match="at least two"):
        statistics.total_iou(masks[:1])


def test_remaining_of_the_first_mask(masks):
    found = statistics.remaining(masks)
    assert found["mask_remaining/layers/layers_0_weight/n_ref"] == 3
    assert found["mask_remaining/layers/layers_0_weight/n_1"] == 1
    assert found["mask_remaining/layers/layers_0_weight/remaining_2"] == 2 / 3
    assert found["mask_remaining/layers/layers_0_bias/remaining_1"] == 1
    assert found["mask_remaining/all/n_total"] == 4
    assert found["mask_remaining/masks/n_0"] == 2
    assert found["mask_remaining/masks/remaining_1"] == 2 / 4
    itself = statistics.remaining([masks[0], masks[0]])
    assert itself["mask_remaining/masks/remaining_0"] == 1
    nothing = tree([[0, 0], [0, 0]], [0, 0])
    empty = statistics.remaining([nothing, masks[0]])
    assert empty["mask_remaining/masks/remaining_0"] == 0


def test_sharing_with_the_union_of_the_others(masks):
    found = statistics.sharing(masks)
    weight, total = "mask_stat/mask_layers_0_weight", "mask_stat/all"
    assert found[f"{weight}/n_total"] == 4
    assert [found[f"{weight}/n_{i}"] for i in (1, 2, 3)] == [3, 2, 2]
    # The first mask shares one weight with each of the others.
    assert found[f"{weight}/shared_1"] == pytest.approx(2 / 3)
    assert found[f"{weight}/shared_2"] == pytest.approx(1 / 2)
    assert found["mask_stat/mask_layers_0_bias/shared_3"] == 0
    assert found[f"{total}/n_total"] == 6
    assert found[f"{total}/n_1"] == 4
    assert found[f"{total}/n_shared_1"] == 3
    assert found[f"{total}/shared_1"] == pytest.approx(3 / 4)
    weights = [found[f"mask_stat/mask_layers_0_{p}/n_1"] for p in ("weight", "bias")]
    shares = [
        found[f"mask_stat/mask_layers_0_{p}/shared_1"] for p in ("weight", "bias")
    ]
    mean = np.dot(weights, shares) / sum(weights)
    assert found[f"{total}/shared_1"] == pytest.approx(mean)


def test_transfer_counts_what_was_used_before(masks):
    used = statistics.used_before(masks[1:])
    found = statistics.transfer_sharing(masks[0], used)
    assert found == {
        "mask_stat/counts/layers_0_weight": 3,
        "mask_stat/counts/layers_0_bias": 1,
        "mask_stat/shared/layers_0_weight": pytest.approx(2 / 3),
        "mask_stat/shared/layers_0_bias": 1,
        "mask_stat/shared/total": pytest.approx(3 / 4),
    }
    with pytest.raises(UsageError, match="masks"):
        statistics.used_before([])


def test_random_masks_keep_as_many_weights_anywhere(masks, key):
    draw = jax.jit(jax.vmap(statistics.random_masks, in_axes=(0, None)))
    wide = {"kernel": jnp.arange(12).reshape(3, 4) < 5, "bias": None}
    found = draw(jax.random.split(key, 4000), wide)
    assert found["bias"] is None
    kernels = np.asarray(found["kernel"])
    assert kernels.dtype == bool
    assert set(kernels.sum(axis=(1, 2))) == {5}
    # Each place has a kept weight in 5 of 12 draws: 4 standard errors are 0.031.
    np.testing.assert_allclose(kernels.mean(axis=0), 5 / 12, atol=0.031)
    apart = statistics.random_masks(key, {"a": wide["kernel"], "b": wide["kernel"]})
    assert bool(jnp.any(apart["a"] != apart["b"]))


def test_cosines_count_kept_weights_only():
    first = {"kernel": jnp.array([3.0, 4.0, 1.0]), "bias": jnp.array([1.0, 0.0])}
    second = {"kernel": jnp.array([4.0, 3.0, -9.0]), "bias": jnp.array([1.0, 1.0])}
    masks = {"kernel": jnp.array([True, True, False]), "bias": None}
    found = statistics.cosines(first, second, masks)
    assert float(found["weight"]) == pytest.approx(24 / 25)
    assert float(found["bias"]) == pytest.approx(1 / math.sqrt(2))
    total = (24 + 1) / math.sqrt((25 + 1) * (25 + 2))
    assert float(found["total"]) == pytest.approx(total)
    same = statistics.cosines(first, first, None)
    assert all(float(value) == pytest.approx(1) for value in same.values())
    nothing = {"kernel": jnp.zeros(3, bool), "bias": None}
    assert float(statistics.cosines(first, second, nothing)["weight"]) == 0


def test_confusion_is_normalised_by_true_class():
    counts = np.array([[3, 0, 0], [1, 2, 0], [0, 2, 0]])
    found = statistics.normalise_confusion(counts)
    expected = [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 0]]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(statistics.normalise_confusion(counts / 8), expected)


def test_drops_of_a_removed_class():
    reference = np.diag([0.8, 0.5, 0.9])
    after = np.diag([0.2, 0.45, 0.99])
    found = statistics.drops(reference, after - reference, 0)
    assert found["target"] == pytest.approx(75)
    assert found["largest_other"] == pytest.approx(10)
    assert found["ratio"] == pytest.approx(100 * 10 / 75)
    gained = statistics.drops(reference, np.diag([-0.4, 0.1, 0.0]), 0)
    assert gained["largest_other"] == gained["ratio"] == 0
    unknown = statistics.drops(np.diag([0.0, 0.5]), np.diag([0.1, -0.1]), 0)
    assert math.isnan(unknown["target"]) and math.isnan(unknown["ratio"])
    assert unknown["largest_other"] == pytest.approx(20)
