"""Thresholds flip where the float32 simulation flips, at every single sum."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import numpy as jnp

from enasq import bit_depthwise, fixed_point, packing, straight_through, thresholds
from shared.errors import UsageError
from tests.enasq.codes import draw, seeds
from tests.quick import quick

CHANNELS = 37
OUTPUTS = [("binary", 1), ("ternary", 1), ("signed", 3), ("unsigned", 2)]


def norm_of(seed, spread=3.0):
    """Return a norm with negative factors, zero ones and ties among its channels."""
    rng = np.random.default_rng(seed)
    scale = rng.normal(size=CHANNELS)
    mean = rng.normal(size=CHANNELS) * spread
    offset = rng.normal(size=CHANNELS)
    variance = rng.uniform(0.1, 9, CHANNELS)
    # Sums that fall on a tie exactly: y = acc / 4 - 1, and its mirror image.
    scale[:2], mean[:2], offset[:2], variance[:2] = (0.25, -0.25), 4, 0, 1
    scale[2:4], offset[2:4] = 0, (0, 2)
    epsilon = 0 if seed % 2 else 1.001e-5
    return thresholds.affine(scale, offset, mean, variance, epsilon)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seeds, st.sampled_from(OUTPUTS), st.sampled_from((1.0, 1 / 9, 1 / 64)))
def test_every_sum_gets_the_code_of_the_simulation(seed, kind, alpha):
    norm = norm_of(seed)
    bound = 60
    acc = np.arange(-bound, bound + 1, dtype=np.int32)[:, None].repeat(CHANNELS, 1)
    fold = thresholds.fold_norm(norm, bound, *kind, alpha=alpha)
    packed = quick(thresholds.apply)(fold, acc)
    y = thresholds.normalise(acc, norm, alpha, np)
    expected = thresholds.activation(y, *kind)
    np.testing.assert_array_equal(packing.unpack(packed), expected)
    bits = [np.asarray(b) for b in packing.bit_planes(jnp.asarray(expected), *kind)]
    words = [packing.pack_bits(jnp.asarray(b)) for b in bits]
    np.testing.assert_array_equal(packed.planes, np.stack(words))


def test_compiled_norms_round_as_numpy_does(optimised):
    acc = np.arange(-3000, 3000, dtype=np.int32)[:, None].repeat(CHANNELS, 1)
    for seed in range(2):
        norm = norm_of(seed, spread=400.0)
        # With optimisation, without which nothing is compiled into one operation.
        compiled = jax.jit(lambda a, norm=norm: thresholds.normalise(a, norm, 1 / 9))
        expected = thresholds.normalise(acc, norm, 1 / 9, np)
        np.testing.assert_array_equal(compiled(acc), expected)


def test_codes_are_those_of_the_layers():
    y = np.linspace(-1.6, 1.6, 129, dtype=np.float32)
    y = np.concatenate([y, np.float32([2**-26, 2**-25, 2**-24, 2**-23, 3e-8])])
    for (kind, bits), layer, steps in (
        (("binary", 1), straight_through.binary_tanh, 1),
        (("ternary", 1), straight_through.ternary_tanh, 1),
        (("signed", 3), lambda x: straight_through.quantized_tanh(x, 3), 4),
    ):
        ours = thresholds.activation(y, kind, bits)
        np.testing.assert_array_equal(ours, steps * np.asarray(layer(jnp.asarray(y))))


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seeds, st.sampled_from(OUTPUTS[:2]))
def test_packed_sums_are_compared_without_unpacking(seed, kind):
    x = draw(seed, "binary", 1, (1, 5, 5, CHANNELS))
    w = draw(seed + 1, "ternary", 1, (3, 3, CHANNELS))
    fold = thresholds.fold_norm(norm_of(seed, 1.0), 9, *kind)

    def run(x, w, fold):
        packed = packing.pack(x, "binary"), packing.pack(w, "ternary")
        sums = bit_depthwise.depthwise(*packed)
        both = thresholds.apply_planes(fold, sums)
        return both.planes, thresholds.apply(fold, packing.unpack(sums)).planes

    ours, expected = quick(run)(x, w, fold)
    np.testing.assert_array_equal(ours, expected)


def test_fixed_point_sums_are_exact_and_near_the_norm():
    norm, bound = norm_of(1), 200
    acc = np.arange(-bound, bound + 1, dtype=np.int32)[:, None].repeat(CHANNELS, 1)
    scale = fixed_point.scale_of(norm, bound)
    value = np.asarray(quick(fixed_point.apply)(scale, acc))
    exact = acc.astype(np.int64) * np.asarray(scale.multiplier, np.int64)
    exact = (exact + np.asarray(scale.start, np.int64)) >> scale.shift
    np.testing.assert_array_equal(value, exact)
    y = thresholds.normalise(acc, norm, 1.0, np)
    assert np.max(np.abs(value / 2**fixed_point.FRACTION - y)) < 0.51 / 2**8
    both = value + value[::-1]
    limit = int(np.abs(both).max())
    fold = fixed_point.fold(limit, CHANNELS, "ternary")
    codes = packing.unpack(quick(thresholds.apply)(fold, jnp.asarray(both)))
    step = np.float32(2.0**-fixed_point.FRACTION)
    expected = thresholds.activation(both.astype(np.float32) * step, "ternary")
    np.testing.assert_array_equal(codes, expected)


def test_thresholds_refuse_what_they_cannot_hold():
    norm = norm_of(0)
    with pytest.raises(UsageError, match="from 1 to 2\\^24 - 1"):
        thresholds.fold_norm(norm, 2**24, "binary")
    with pytest.raises(UsageError, match="finite statistics"):
        thresholds.affine([1.0], [0.0], [0.0], [-1.0], 1e-5)
    with pytest.raises(UsageError, match="an integer from 1 to 8"):
        thresholds.fold_norm(norm, 9, "signed", 12)
    with pytest.raises(UsageError, match="fraction: got 40"):
        fixed_point.scale_of(norm, 2**20, fraction=40)
