"""The hash that draws masks: uniform, independent, and a function of its key alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared import masking
from shared.errors import UsageError
from shared.masking import noise

SHAPE = (256, 256)
SOURCES = noise.SOURCES


@pytest.fixture(scope="module")
def draws():
    """Return bits `[step, sample, leaf, *SHAPE]` of consecutive steps' keys."""

    def of_step(step):
        key = jax.random.fold_in(jax.random.key(3), step)
        seeds = noise.sample_seeds(noise.sample_keys(key, 2, 0), 2)
        return jnp.stack([noise.hashed_bits(own, SHAPE) for own in seeds], axis=1)

    return np.asarray(jax.jit(lambda: jax.lax.map(of_step, jnp.arange(4)))())


def chi_square(counts):
    """Return the statistic in standard deviations from its mean."""
    counts = np.asarray(counts, float).ravel()
    expected = counts.sum() / counts.size
    degrees = counts.size - 1
    statistic = np.sum((counts - expected) ** 2) / expected
    return (statistic - degrees) / np.sqrt(2 * degrees)


def correlation(a, b):
    """Return the correlation in standard deviations of independent draws'."""
    a, b = (x.ravel() / 2.0**32 - 0.5 for x in (a, b))
    return np.mean(a * b) * 12 * np.sqrt(a.size)


def test_values_and_bits_are_uniform(draws):
    for part in draws.reshape(-1, SHAPE[0] * SHAPE[1]):
        assert abs(chi_square(np.bincount(part >> 24, minlength=256))) < 5
        assert abs(chi_square(np.bincount(part & 255, minlength=256))) < 5
        pairs = (part[0::2] >> 28) * 16 + (part[1::2] >> 28)
        assert abs(chi_square(np.bincount(pairs, minlength=256))) < 5
    ones = [np.mean(draws >> bit & 1) for bit in range(32)]
    assert np.abs(np.array(ones) - 0.5).max() * 2 * np.sqrt(draws.size) < 5


def test_neighbours_steps_samples_and_leaves_are_independent(draws):
    first = draws[0, 0, 0]
    for a, b in (
        (first[1:], first[:-1]),
        (first[:, 1:], first[:, :-1]),
        (first[1:, 1:], first[:-1, :-1]),
        (draws[1:], draws[:-1]),
        (draws[:, 0], draws[:, 1]),
        (draws[:, :, 0], draws[:, :, 1]),
    ):
        assert abs(correlation(a, b)) < 5
        # Bits of one may follow from those of the other where values do not.
        for bit in (31, 24, 16, 8):
            same = np.mean((a ^ b) >> np.uint32(bit) & 1)
            assert abs(same - 0.5) * 2 * np.sqrt(a.size) < 5
        joint = (a >> 28) * 16 + (b >> 28)
        assert abs(chi_square(np.bincount(joint.ravel(), minlength=256))) < 5


def test_runs_are_as_long_as_those_of_coins(draws):
    """Of the masks of logit 0, along both axes: half of all runs are of length 1."""
    for bits in (draws[0, 0, 0], draws[0, 0, 0].T):
        kept = (bits >> np.uint32(31)).ravel()
        changes = np.flatnonzero(np.diff(kept))
        lengths = np.diff(changes)
        for length in (1, 2, 3, 5):
            share, n = np.mean(lengths == length), len(lengths)
            expected = 2.0**-length
            assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)


def test_streams_whose_seeds_are_near_do_not_repeat_each_other():
    """A first word that is 5 more is a shift by 5 weights but for the second word."""
    seeds = jnp.array([[7, 11], [12, 12], [12, 0x8000000B]], jnp.uint32)
    bits = np.asarray(noise.hashed_bits(seeds, (1 << 16,)))
    for other in bits[1:]:
        assert abs(correlation(bits[0, 5:], other[:-5])) < 5
        joint = (bits[0, 5:] >> 28) * 16 + (other[:-5] >> 28)
        assert abs(chi_square(np.bincount(joint, minlength=256))) < 5


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("bits", [32, 64])
def test_frequencies_match_the_probabilities(source, bits):
    with jax.enable_x64(bits == 64):
        levels = np.array([-8.0, -3.0, -0.5, 0.0, 1.0, 4.0])
        logits = jnp.asarray(np.repeat(levels[:, None], 1 << 14, 1), f"float{bits}")
        draw = jax.jit(lambda l, k: masking.sample(l, 4, key=k, source=source))
        masks = draw(logits, jax.random.key(1))
        assert masks.dtype == logits.dtype
        p = 1 / (1 + np.exp(-levels))
        n = 4 * logits.shape[1]
        assert np.all(
            np.abs(masks.mean((0, 2)) - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-7
        )
        within = np.asarray(masks).transpose(1, 0, 2).reshape(6, -1, 16).sum(2)
        variance = 16 * p * (1 - p)
        ratio = within.var(1)[1:] / variance[1:]
        np.testing.assert_allclose(ratio, 1, atol=0.12)


def test_uniforms_lie_strictly_inside():
    ends = jnp.array([0, 2**32 - 1], jnp.uint32)
    for dtype in (jnp.float32, jnp.float16):
        u = noise.uniform_of_bits(ends, jnp.dtype(dtype))
        assert u.dtype == jnp.float32 and 0 < u[0] < 1e-7 and 1 - 1e-6 < u[1] < 1
    with jax.enable_x64(True):
        u = noise.uniform_of_bits(ends, jnp.dtype(jnp.float64))
        assert 0 < u[0] < 2e-10 and 1 - 2e-10 < u[1] < 1


@pytest.mark.parametrize("source", SOURCES)
def test_sample_k_is_the_same_however_many_are_drawn(key, source):
    logits = {"w": jnp.zeros((5, 7)), "b": None, "v": jnp.ones(9)}
    draw = jax.jit(
        lambda first, n, key: masking.sample(
            logits, n, key=key, source=source, first=first
        ),
        static_argnums=1,
    )
    four, third = draw(0, 4, key), draw(2, 1, key)
    own = masking.sample(logits, key=key, source=source, first=2)
    for name in ("w", "v"):
        np.testing.assert_array_equal(four[name][2], third[name][0])
        np.testing.assert_array_equal(four[name][2], own[name])
        np.testing.assert_array_equal(four[name], draw(0, 4, key)[name])
        assert not np.array_equal(four[name][0], four[name][1])
        other = draw(0, 4, jax.random.fold_in(key, 1))
        assert not np.array_equal(four[name], other[name])
    with pytest.raises(UsageError, match="source"):
        masking.sample(logits, key=key, source="philox")


def uniforms(key, leaf, n):
    """Return the draws of the only leaf of a tree."""
    seeds = noise.sample_seeds(noise.sample_keys(key, n, 0), 1)[0]
    return noise.uniform_of_bits(noise.hashed_bits(seeds, leaf.shape), leaf.dtype)


@pytest.mark.parametrize("kind", ["hard", "soft", "hard_concrete"])
@pytest.mark.parametrize("tau", [1.0, 0.6, jnp.float32(1.0), jnp.float32(0.6)])
@pytest.mark.parametrize("n", [3, 20])
def test_hash_has_the_values_and_gradients_of_its_own_noise(key, kind, tau, n):
    """n = 20 is summed another way than 3."""
    logits = jnp.linspace(-6, 6, 24).reshape(4, 6)
    pick = jax.random.normal(key, (n, 4, 6))
    u = uniforms(key, logits, n)

    def value(logits, **source):
        if kind == "hard_concrete":
            masks = masking.draw(kind, logits, n, tau=tau, **source)
        else:
            masks = masking.sample(logits, n, tau=tau, hard=kind == "hard", **source)
        return jnp.sum(masks * pick), masks

    run = jax.jit(jax.grad(value, has_aux=True))
    gradient, masks = run(logits, key=key)
    expected, replayed = run(logits, uniform=u)
    np.testing.assert_allclose(masks, replayed, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_gradients_stay_finite_at_extreme_logits(key):
    for logits in (jnp.array([-200.0, -90.0, 90.0, 200.0]), jnp.full(4, 3e38)):
        for tau in (1.0, 0.1):
            total = lambda l: jnp.sum(masking.sample(l, 4, key=key, tau=tau))  # noqa: B023
            gradient = jax.grad(total)(logits)
            np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_members_of_a_vmap_draw_by_their_own_keys(key):
    keys = jax.random.split(key, 3)
    logits = jnp.stack([jnp.zeros(40), jnp.ones(40), -jnp.ones(40)])
    pick = jnp.arange(80.0).reshape(2, 40)
    total = lambda l, k: jnp.sum(masking.sample(l, 2, key=k) * pick)
    both = jax.vmap(jax.value_and_grad(total))(logits, keys)
    for i in range(3):
        value, gradient = jax.value_and_grad(total)(logits[i], keys[i])
        np.testing.assert_allclose(both[0][i], value, rtol=1e-6)
        np.testing.assert_allclose(both[1][i], gradient, rtol=1e-5)
