"""Kinds of masks, penalties, masks shared by blocks of weights, and exports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared import masking
from shared.errors import UsageError
from shared.layers.linear import init_linear, linear
from shared.model import Model, Variables

KINDS = ("gumbel", "hard_concrete", "annealed")


def test_hard_concrete_samples_have_their_distribution(key):
    """P(m = 0), P(m = 1) and the mean, from the closed form of the stretched s."""
    levels = np.array([-2.0, 0.0, 1.5])
    logits = jnp.repeat(jnp.asarray(levels, jnp.float32)[:, None], 20000, 1)
    masks = np.asarray(masking.draw("hard_concrete", logits, 4, key=key))
    assert masks.min() == 0 and masks.max() == 1
    beta, gamma, zeta = 2 / 3, -0.1, 1.1
    # m <= t where the logistic noise is at most β logit((t - γ)/(ζ - γ)) - l.
    odds = lambda t: (t - gamma) / (zeta - t)
    below = lambda t: 1 / (1 + np.exp(levels - beta * np.log(odds(t))))
    grid = (np.arange(4000) + 0.5) / 4000
    mean = 1 - np.mean([below(t) for t in grid], axis=0)
    np.testing.assert_allclose((masks == 0).mean((0, 2)), below(0.0), atol=0.01)
    np.testing.assert_allclose((masks == 1).mean((0, 2)), 1 - below(1.0), atol=0.01)
    np.testing.assert_allclose(masks.mean((0, 2)), mean, atol=0.01)
    kept = masking.expected_l0({"w": logits}, "hard_concrete")
    np.testing.assert_allclose((masks > 0).sum(), 4 * kept, rtol=0.01)


def test_annealed_masks_become_steps(key):
    logits = {"w": jnp.array([-0.5, -0.01, 0.0, 0.01, 2.0]), "b": None}
    start = masking.draw("annealed", logits, 2)
    assert start["w"].shape == (2, 5) and start["b"] is None
    np.testing.assert_allclose(start["w"][0], jax.nn.sigmoid(logits["w"]), rtol=1e-6)
    end = masking.draw("annealed", logits, key=key, progress=jnp.float32(1.0))["w"]
    np.testing.assert_allclose(end, jax.nn.sigmoid(200 * logits["w"]), rtol=1e-4)
    slope = jax.grad(lambda l: jnp.sum(masking.draw("annealed", l, 3, progress=0.5)))
    beta, s = 200**0.5, jax.nn.sigmoid(200**0.5 * logits["w"])
    expected = 3 * beta * s * (1 - s)
    np.testing.assert_allclose(slope(logits["w"]), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_one_threshold_is_that_of_every_kind(kind):
    """Kept is what the noiseless mask puts above 1/2; 1/2 itself, at l = 0, is not."""
    logits = jnp.array([-3.0, -0.2, -1e-3, 0.0, 1e-3, 0.2, 3.0])
    for progress in (0.0, 1.0):
        soft = masking.soft_mask(kind, logits, progress=progress)
        np.testing.assert_array_equal(masking.threshold(logits), soft > 0.5)
    assert soft[0] < 0.05 and soft[-1] > 0.95


def test_hard_concrete_without_noise_reaches_both_ends():
    soft = masking.soft_mask("hard_concrete", jnp.array([-2.5, -2.3, 2.3, 2.5]))
    assert soft[0] == 0 < soft[1] and soft[2] < 1 == soft[3]


def test_unknown_kinds(key):
    for call in (
        lambda: masking.draw("bernoulli", jnp.zeros(2), key=key),
        lambda: masking.soft_mask("bernoulli", jnp.zeros(2)),
        lambda: masking.expected_l0(jnp.zeros(2), "bernoulli"),
    ):
        with pytest.raises(UsageError, match="kind: got 'bernoulli'"):
            call()
    with pytest.raises(UsageError, match="n: got 0"):
        masking.draw("annealed", jnp.zeros(2), 0)
    with pytest.raises(UsageError, match="key, uniform"):
        masking.draw("hard_concrete", jnp.zeros(2))


# Penalties


def test_expected_l0_counts_samples(key):
    logits = {"w": jnp.linspace(-3, 3, 5000), "b": None}
    for kind in ("gumbel", "hard_concrete"):
        masks = masking.draw(kind, logits, 20, key=key)
        kept = masking.total(masking.count(jax.tree.map(lambda m: m > 0, masks)))
        np.testing.assert_allclose(kept / 20, masking.expected_l0(logits, kind), 0.01)
    at_end = masking.expected_l0(logits, "annealed", progress=1.0)
    np.testing.assert_allclose(at_end, 2500, rtol=1e-3)


def test_density_is_pushed_to_the_target_from_both_sides():
    moments = (0.0, 0.25, jnp.float32(0.5), 1.0)
    target = [masking.target_density(p, 0.2, ramp=0.5) for p in moments]
    np.testing.assert_allclose(target, [1, 0.6, 0.2, 0.2], rtol=1e-6)
    slope = jax.grad(masking.density_penalty)
    logits = jnp.zeros(10)
    assert np.all(slope(logits, 0.2) > 0) and np.all(slope(logits, 0.8) < 0)
    np.testing.assert_allclose(slope(logits, 0.5), 0, atol=1e-7)
    np.testing.assert_allclose(masking.density_penalty(logits, 0.2), 10 * 0.09, 1e-5)
    np.testing.assert_allclose(slope(logits, 0.2), 2 * 0.3 * 0.25, rtol=1e-5)


# Masks that weights share


@pytest.fixture
def blocks(key):
    """Return a linear layer of 6 x 8, and logits for rows, heads and blocks."""
    params = init_linear(key, 6, 8)
    shapes = {"rows": (6, 1), "columns": (1, 8), "heads": (1, 2), "blocks": (3, 4)}
    logits = {
        name: masking.init_logits(
            params,
            lambda path, _: path == "kernel",
            share=lambda path, _: shape,  # noqa: B023
        )
        for name, shape in shapes.items()
    }
    assert {n: tree["kernel"].shape for n, tree in logits.items()} == shapes
    return params, logits


def by_hand(mask, shape):
    mask = np.asarray(mask)
    for axis in (0, 1):
        mask = np.repeat(mask, shape[axis] // mask.shape[axis], axis)
    return mask


def two_checkered(leaf):
    """Return two masks `[2, *shape]` that keep every second entry, or the others."""
    second = jnp.arange(leaf.size).reshape(1, *leaf.shape) % 2
    return jnp.concatenate([second, 1 - second]).astype(leaf.dtype)


def test_shared_masks_cover_consecutive_weights(blocks, key):
    params, logits = blocks
    x = jax.random.normal(key, (4, 6))

    def apply(variables, x, **_):
        return linear(variables.params, x), variables.state

    model = Model(lambda key: Variables(params), apply)
    for name, tree in logits.items():
        mask = jax.tree.map(two_checkered, tree)
        full = [by_hand(m, (6, 8)) for m in mask["kernel"]]
        assert 0 < full[0].sum() < 48, name
        each = [jax.tree.map(lambda m: m[k], mask) for k in range(2)]  # noqa: B023
        masked = masking.apply_masks(params, each[0])
        np.testing.assert_array_equal(masked["kernel"], params["kernel"] * full[0])
        expanded = masking.expand(each[0], params)
        np.testing.assert_array_equal(expanded["kernel"], full[0])
        outputs = masking.batched_apply(model, Variables(params), mask, x)[0]
        halves = zip(x.reshape(2, 2, 6), full, strict=True)
        changed = lambda f: {**params, "kernel": params["kernel"] * f}
        parts = [linear(changed(f), half) for half, f in halves]
        np.testing.assert_allclose(outputs, np.concatenate(parts), rtol=1e-5)


def test_gradients_of_shared_logits_add_up(blocks):
    params, logits = blocks
    pick = jnp.arange(48.0).reshape(6, 8)
    for tree in logits.values():
        used = lambda l: jnp.sum(masking.apply_masks(params, l)["kernel"] * pick)
        gradient = jax.grad(used)(jax.tree.map(jnp.ones_like, tree))["kernel"]
        rows, columns = gradient.shape
        whole = np.asarray(pick * params["kernel"])
        summed = whole.reshape(rows, 6 // rows, columns, 8 // columns).sum((1, 3))
        np.testing.assert_allclose(gradient, summed, rtol=1e-5)


def test_statistics_and_penalties_count_weights(blocks):
    params, _ = blocks
    a = {"kernel": jnp.array([[True, False]]), "bias": None}
    b = {"kernel": jnp.array([[True], [True], [True], [False], [True], [False]])}
    b = {**b, "bias": None}
    assert int(masking.count(a, params)["kernel"]) == 24
    assert int(masking.count(b, params)["kernel"]) == 32
    assert masking.block_sizes(a, params) == {"kernel": 24, "bias": None}
    np.testing.assert_allclose(masking.iou(a, b, params)[1], 16 / 40)
    np.testing.assert_allclose(masking.iomin(a, b, params)[1], 16 / 24)
    np.testing.assert_allclose(masking.remaining(a, b, params)[1], 16 / 32)
    np.testing.assert_allclose(masking.sharing(a, [b], params)[1], 16 / 24)
    each, whole = masking.density(b, params)
    np.testing.assert_allclose([each["kernel"], whole], [2 / 3, 2 / 3])
    logits = {"kernel": jnp.array([[0.0, 2.0]]), "bias": None}
    np.testing.assert_allclose(masking.linear_penalty(logits, params=params), 48.0)
    kept = 24 * (0.5 + jax.nn.sigmoid(2.0))
    np.testing.assert_allclose(masking.expected_l0(logits, params=params), kept, 1e-6)
    penalty = masking.density_penalty(logits, 0.5, params=params)
    np.testing.assert_allclose(penalty, 48 * (kept / 48 - 0.5) ** 2, rtol=1e-5)


def test_blocks_must_divide_the_parameter(blocks):
    params, _ = blocks
    for shape in ((4, 8), (6,), (6, 0), (12, 8)):
        with pytest.raises(UsageError, match="share"):
            masking.init_logits(
                params,
                lambda path, _: path == "kernel",
                share=lambda path, _: shape,  # noqa: B023
            )
    with pytest.raises(UsageError, match=r"masks\[kernel\]"):
        masking.expand({"kernel": jnp.ones((4, 8)), "bias": None}, params)


# Export


def test_exported_parameters_are_those_of_the_masked_network(blocks, key):
    params, logits = blocks
    noisy = jax.random.normal(key, (1, 2))
    masks = masking.threshold({"kernel": noisy, "bias": jnp.linspace(-1, 1, 8)})
    exported = masking.export(params, masks)
    x = jax.random.normal(key, (3, 6))
    masked = linear(masking.apply_masks(params, masks), x)
    np.testing.assert_array_equal(linear(exported, x), masked)
    assert jax.tree.structure(exported) == jax.tree.structure(params)
    assert not np.any(np.signbit(np.asarray(exported["bias"])[:4]))
    # A removed weight is gone, whatever it was.
    broken = {**params, "bias": params["bias"].at[0].set(jnp.nan)}
    assert np.all(np.isfinite(masking.export(broken, masks)["bias"]))
    zeros = sum(int(jnp.sum(leaf == 0)) for leaf in jax.tree.leaves(exported))
    assert zeros == 56 - int(masking.total(masking.count(masks, params)))
