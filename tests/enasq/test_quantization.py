"""Quantisers: values, gradients, codes and settings."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from enasq import learned, learning, powers, quantization, scales
from enasq import policy as policies
from enasq import straight_through as through
from enasq.quantization import QUANTIZERS, Quantizer
from shared.errors import UsageError
from tests.quick import quick

# Ties, ends of intervals and their neighbours, all of them exact in binary.
GRID = np.concatenate(
    [np.arange(-160, 161) / 64, [-8.5, 7.5, 0.9375, -1.0625], [1e-30, -1e-30]]
).astype(np.float32)


def half(x):
    return np.clip(0.5 * x + 0.5, 0, 1)


def within(x, low=-1.0, high=1.0):
    return ((x >= low) & (x <= high)).astype(np.float32)


def sign(x):
    return np.where(x > 1e-7, 1.0, -1.0)


def trits(x, high=1.0):
    return high * np.where(x / high > 0.5, 1.0, np.where(x / high <= -0.5, -1.0, 0.0))


def fixed(x, m):
    return np.clip(np.round(x * m), -m, m - 1) / m


def rectified(x):
    return 2 * np.round(half(x) * 8) / 8 - 1


TABLE = {
    "round": (through.round_through, np.round, np.ones_like),
    "clip_through": (
        lambda x: through.clip_through(x, -1, 0.5),
        lambda x: np.clip(x, -1, 0.5),
        np.ones_like,
    ),
    "clip": (
        lambda x: through.clip(x, -1, 0.5),
        lambda x: np.clip(x, -1, 0.5),
        lambda x: within(x, -1, 0.5),
    ),
    "hard_sigmoid": (through.hard_sigmoid, half, lambda x: 0.5 * within(x)),
    "binary_sigmoid": (
        through.binary_sigmoid,
        lambda x: (sign(x) + 1) / 2,
        lambda x: 0.5 * within(x),
    ),
    "binary_tanh": (through.binary_tanh, sign, within),
    "binarize": (
        lambda x: through.binarize(x, 0.5),
        lambda x: 0.5 * sign(x),
        lambda x: within(x, -0.5, 0.5),
    ),
    "ternarize": (
        lambda x: through.ternarize(x, 0.5),
        lambda x: trits(x, 0.5),
        np.ones_like,
    ),
    "ternary_tanh": (through.ternary_tanh, trits, within),
    "quantize": (
        lambda x: through.quantize(x, 3),
        lambda x: fixed(x, 4),
        lambda x: within(np.round(4 * x), -4, 3),
    ),
    "quantized_relu": (
        lambda x: through.quantized_relu(x, 3),
        lambda x: np.clip(rectified(x), 0, 0.75),
        lambda x: within(x) * within(rectified(x), 0, 0.75),
    ),
    "approx_sign": (
        through.approx_sign,
        sign,
        lambda x: np.maximum(2 - 2 * np.abs(x), 0),
    ),
}


def with_gradient(function, x):
    """Return values and the factors of the gradient, both from one program."""

    def program(x):
        y, back = jax.vjp(function, x)
        return y, back(jnp.full_like(y, 3.0))[0] / 3

    return quick(program)(x)


@pytest.mark.parametrize("name", TABLE)
def test_values_and_factors_are_those_of_the_definition(name):
    function, values, factors = TABLE[name]
    y, factor = with_gradient(function, jnp.asarray(GRID))
    np.testing.assert_array_equal(y, values(GRID))
    np.testing.assert_allclose(factor, factors(GRID), rtol=1e-6)


def test_swish_sign_has_the_slope_of_its_smooth_form():
    with jax.enable_x64(True):
        beta, x = 5.0, jnp.linspace(-3, 3, 25)
        smooth = lambda x: (
            2 * jax.nn.sigmoid(beta * x) * (1 + beta * x * jax.nn.sigmoid(-beta * x))
        )
        y, factor = with_gradient(lambda x: through.swish_sign(x, beta), x)
        np.testing.assert_array_equal(y, sign(np.asarray(x)))
        np.testing.assert_allclose(
            factor, jax.vmap(jax.grad(smooth))(x), rtol=1e-9, atol=1e-12
        )
        # The steepest point is finite, and so are the ends.
        _, far = with_gradient(through.swish_sign, jnp.array([-1e4, 0.0, 1e4]))
        np.testing.assert_allclose(far, [0, beta, 0])


def test_draws_follow_their_probabilities_and_pass_gradients(key):
    x = jnp.array([-2.0, -0.5, 0.0, 0.8, 1.0])
    draw = jax.vmap(
        lambda key: with_gradient(lambda x: through.stochastic_binary(x, key), x)
    )
    y, factor = draw(jax.random.split(key, 4000))
    assert set(np.unique(y)) == {-1.0, 1.0}
    np.testing.assert_allclose(jnp.mean(y > 0, axis=0), half(np.asarray(x)), atol=0.04)
    np.testing.assert_array_equal(factor[0], within(np.asarray(x)))


def test_powers_of_two_are_the_nearest_by_exponent():
    x = np.concatenate([GRID, 2.0 ** np.arange(-30, 30)]).astype(np.float32)
    wide = x.astype(np.float64)
    with np.errstate(divide="ignore"):
        exponent = np.round(np.log2(np.abs(wide)))
    nearest = np.sign(wide) * 2.0**exponent
    y, factor = with_gradient(powers.ap2, jnp.asarray(x))
    np.testing.assert_array_equal(y, nearest)
    np.testing.assert_array_equal(factor, 1)
    y, factor = with_gradient(lambda x: powers.log_quantize(x, 3), jnp.asarray(x))
    # Three powers: 1, 1/2, 1/4; below 2^-2.5 lies 0.
    window = np.sign(wide) * 2.0 ** np.clip(exponent, -2, 0)
    np.testing.assert_array_equal(y, np.where(np.abs(wide) < 2**-2.5, 0, window))
    np.testing.assert_array_equal(factor, np.abs(x) <= 1)


def test_powers_and_logarithms_pass_gradients():
    x = jnp.array([0.5, 2.0, -4.0])
    for function, values in (
        (lambda x: powers.pow_through(x, 2), [2**0.5, 4, 1 / 16]),
        (powers.log2_through, [-1, 1, 2]),
    ):
        y, factor = with_gradient(function, x)
        np.testing.assert_allclose(y, values, rtol=1e-6)
        np.testing.assert_array_equal(factor, 1)


def test_ternary_product_sends_back_latent_weights(key):
    x, w = jax.random.normal(key, (2, 5, 3)), jax.random.normal(key, (3, 4))
    y, back = jax.vjp(through.ternarize_dot, x, w)
    g = jnp.cos(y)
    by_x, by_w = back(g)
    np.testing.assert_allclose(y, x @ trits(np.asarray(w)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_x, g @ w.T, rtol=1e-5, atol=1e-6)
    by_hand = np.einsum("abi,abo->io", x, g)
    np.testing.assert_allclose(by_w, by_hand, rtol=1e-5, atol=1e-5)


WEIGHTS = [
    Quantizer("binary", high="Glorot"),
    Quantizer("xnor"),
    Quantizer("xnor", scale="tensor"),
    Quantizer("swish_sign", scale="channel"),
    Quantizer("ternary", high=0.3),
    Quantizer("twn"),
    Quantizer("twn", scale="channel", factor=0.7),
    Quantizer("ttq"),
    Quantizer("ttq", symmetric=True),
    Quantizer("kbit", 1),
    Quantizer("kbit", 16),
    Quantizer("kbit", 3, scale="channel"),
    Quantizer("dorefa", 1),
    Quantizer("dorefa", 3),
    Quantizer("lsq", 3),
    Quantizer("log", 4),
]
ACTIVATIONS = [
    Quantizer("stochastic_binary"),
    Quantizer("approx_sign"),
    Quantizer("ternary"),
    Quantizer("kbit", 3),
    Quantizer("quantized_relu", 3),
    Quantizer("dorefa", 3),
    Quantizer("lsq", 2, signed=False, scale="channel"),
]
ALL = [(q, "weights") for q in WEIGHTS] + [(q, "activations") for q in ACTIVATIONS]


def results(quantizer, role, x):
    """Return learned parameters, values, codes, scales and the gradient by x."""
    params = quantization.init(quantizer, x, role=role)

    def program(params, x):
        values, back = jax.vjp(
            lambda x: quantization.quantize(quantizer, params, x, role=role), x
        )
        found = quantization.codes(quantizer, params, x, role=role)
        return values, *found, *back(jnp.ones_like(x))

    return params, *quick(program)(params, x)


@pytest.mark.parametrize(("quantizer", "role"), ALL)
def test_codes_times_scale_are_the_values(key, quantizer, role):
    x = jax.random.uniform(key, (3, 3, 6, 5), minval=-1.3, maxval=1.3)
    _, values, codes, scale, grad = results(quantizer, role, x)
    np.testing.assert_array_equal(values, np.asarray(codes, np.float32) * scale)
    assert codes.dtype == jnp.int32 and values.dtype == x.dtype
    levels = quantization.levels(quantizer, role=role)
    assert set(np.unique(codes)) <= set(levels)
    assert list(levels) == sorted(levels)
    if len(levels) <= 16 and quantizer.name != "lsq":
        assert len(np.unique(codes)) >= len(levels) - 1
    assert len(levels) <= 2 ** quantization.bits_of(quantizer, role=role)
    assert np.isfinite(grad).all() and np.any(grad)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_double_precision_and_maps_over_members(key, name):
    quantizer = Quantizer(name)
    with jax.enable_x64(True):
        x = jax.random.normal(key, (2, 4, 3), jnp.float64)
        params = quantization.init(quantizer, x[0])
        run = functools.partial(quantization.quantize, quantizer, params)
        mapped = quick(jax.vmap(jax.value_and_grad(lambda x: jnp.sum(run(x)))))(x)
        assert mapped[0].dtype == mapped[1].dtype == jnp.float64
        np.testing.assert_allclose(mapped[0][1], jnp.sum(run(x[1])), rtol=1e-12)


def test_threshold_scale_is_the_best_for_its_signs(key):
    w = jax.random.normal(key, (3, 3, 4, 6))
    for scale in ("tensor", "channel"):
        parts = scales.twn_parts(w, 0.75, scale)
        axes = None if scale == "tensor" else (0, 1, 2)
        rest = (w - parts.alpha * parts.codes) * parts.codes
        np.testing.assert_allclose(jnp.sum(rest, axes), 0, atol=1e-4)
        np.testing.assert_array_equal(jnp.abs(w) > parts.delta, parts.codes != 0)


def test_grid_over_the_range_holds_the_largest_weight(key):
    w = jax.random.normal(key, (20, 3)) * jnp.array([[0.1, 1.0, 30.0]])
    y, factor = with_gradient(lambda w: scales.range_quantize(w, 4, "channel"), w)
    size = jnp.max(jnp.abs(w), axis=0)
    np.testing.assert_allclose(jnp.max(jnp.abs(y), axis=0), size, rtol=1e-6)
    assert np.all(np.max(np.abs(y - w), 0) <= size / 14 * 1.0001)
    np.testing.assert_array_equal(factor, 1)


def test_zeros_are_quantised_to_finite_values():
    zeros = jnp.zeros((3, 2))
    for name in QUANTIZERS:
        _, values, *_, grad = (
            results(Quantizer(name), "weights", zeros)
            if name != "float"
            else (None, zeros, zeros)
        )
        assert np.isfinite(values).all() and np.isfinite(grad).all(), name


def test_learned_step_gets_its_published_gradient(key):
    x, g = jax.random.normal(key, (2, 6, 4, 3)) * 2
    step = jnp.array([[[0.5, 0.3, 1.0]]])
    rate = 0.125
    y, back = jax.vjp(lambda x, s: learned.learned_step(x, s, -4, 3, rate), x, step)
    by_x, by_step = back(g)
    v = np.asarray(x / step)
    inside = (v > -4) & (v < 3)
    slope = np.where(v <= -4, -4, np.where(v >= 3, 3, np.round(v) - v))
    np.testing.assert_allclose(y, np.round(np.clip(v, -4, 3)) * step, rtol=1e-6)
    np.testing.assert_allclose(by_x, np.where(inside, g, 0))
    total = np.sum(slope * g, (0, 1), keepdims=True) * rate
    np.testing.assert_allclose(by_step, total, rtol=1e-4, atol=1e-5)
    assert np.any(~inside) and by_step.shape == step.shape


def test_learned_step_counts_what_shares_it(key):
    """g = 1 / √(n Q): activations do not count examples, channels share no step."""
    x = jax.random.normal(key, (8, 2, 3, 5))
    for role, scale, n in (
        ("weights", "tensor", 240),
        ("weights", "channel", 48),
        ("activations", "tensor", 30),
    ):
        quantizer = Quantizer("lsq", 3, scale=scale)
        params = quantization.init(quantizer, x, role=role)
        ours = jax.grad(
            lambda p, q=quantizer, r=role: jnp.sum(
                quantization.quantize(q, p, x, role=r)
            )
        )(params)["step"]
        plain = jax.grad(lambda s: jnp.sum(learned.learned_step(x, s, -4, 3)))
        np.testing.assert_allclose(
            ours, plain(params["step"]) / (n * 3) ** 0.5, rtol=1e-5
        )


def test_trained_scales_get_their_true_gradient(key):
    with jax.enable_x64(True):
        w, g = jax.random.normal(key, (2, 30), jnp.float64)
        loss = lambda w, p, n: jnp.sum(learned.trained_ternary(w, p, n, 0.2) * g)
        at = jnp.asarray(0.7), jnp.asarray(1.3)
        by_w, *found = jax.grad(loss, (0, 1, 2))(w, *at)
        step = 1e-6
        for index, ours in enumerate(found):
            up, down = (
                [v + s * (i == index) for i, v in enumerate(at)] for s in (step, -step)
            )
            numeric = (loss(w, *up) - loss(w, *down)) / (2 * step)
            np.testing.assert_allclose(ours, numeric, rtol=1e-6)
        codes = learned.trained_codes(w, 0.2)
        np.testing.assert_allclose(by_w, g * jnp.array([1.3, 1, 0.7])[codes + 1])


def test_squashed_weights_use_the_whole_range(key):
    with jax.enable_x64(True):
        w = jax.random.normal(key, (40,), jnp.float64)
        y, factor = with_gradient(lambda w: scales.dorefa(w, 2), w)
        np.testing.assert_allclose(np.unique(y), [-1, -1 / 3, 1 / 3, 1], rtol=1e-12)
        smooth = lambda w: jnp.sum(jnp.tanh(w) / jnp.max(jnp.abs(jnp.tanh(w))))
        np.testing.assert_allclose(factor, jax.grad(smooth)(w), rtol=1e-9)
        one, _ = with_gradient(lambda w: scales.dorefa(w, 1), w)
        np.testing.assert_allclose(one, jnp.sign(w) * jnp.mean(jnp.abs(w)))


def test_stored_bits():
    stored = {"float": 32, "binary": 1, "ternary": 2, "kbit": 4, "twn": 2, "log": 4}
    found = {name: quantization.bits_of(Quantizer(name)) for name in stored}
    assert found == stored
    assert quantization.bits_of(Quantizer("dorefa", 3), role="activations") == 3
    assert quantization.bits_of(Quantizer("kbit", 16)) == 16


def test_records_compare_by_what_they_mean():
    assert Quantizer("kbit") == Quantizer("kbit", 4)
    assert hash(Quantizer("kbit")) == hash(Quantizer("kbit", bits=4))
    assert Quantizer("kbit", 3) != Quantizer("kbit", 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "ternery"}, "Did you mean 'ternary'"),
        ({"name": "kbit", "bits": 0}, ">= 1 and <= 16"),
        ({"name": "kbit", "bits": 17}, "got 17"),
        ({"name": "kbit", "bits": True}, "an integer"),
        ({"name": "binary", "bits": 2}, "high for 'binary'"),
        ({"name": "float", "high": 1.0}, "no settings for 'float'"),
        ({"name": "binary", "high": 0}, "> 0"),
        ({"name": "binary", "high": "glorot"}, "Did you mean 'Glorot'"),
        ({"name": "xnor", "scale": "row"}, "none, tensor, channel"),
        ({"name": "lsq", "bits": 1}, "2 to 16"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Quantizer(**settings)


def test_what_cannot_be_done_is_refused():
    x = jnp.ones((2, 2))
    with pytest.raises(UsageError, match="meant for activations"):
        quantization.quantize(Quantizer("twn"), {}, x, role="activations")
    with pytest.raises(UsageError, match="integer codes"):
        quantization.codes(Quantizer("float"), {}, x)
    with pytest.raises(UsageError, match="at most 6"):
        quantization.codes(Quantizer("log", 7), {}, x)


@pytest.mark.parametrize(
    "quantizer", (Quantizer("binary", high=0.5), Quantizer("kbit", bits=4))
)
def test_latent_weights_have_gradients_in_their_range_and_lose_them_beyond(quantizer):
    low, high = quantization.latent_range(quantizer, (1, 1, 1, 3))
    kernel = jnp.asarray([low, high, high + 0.1]).reshape(1, 1, 1, 3)
    slope = jax.grad(lambda w: quantization.quantize(quantizer, {}, w).sum())(kernel)
    assert (np.asarray(slope).ravel() != 0).tolist() == [True, True, False]


@pytest.mark.parametrize("scale", ("tensor", "channel"))
def test_latent_weights_on_a_grid_of_their_own_range_learn_everywhere(scale):
    quantizer = Quantizer("kbit", bits=4, scale=scale)
    kernel = jnp.asarray([-7.0, 0.2, 3.0]).reshape(1, 1, 1, 3)
    slope = jax.grad(lambda w: quantization.quantize(quantizer, {}, w).sum())(kernel)
    assert (np.asarray(slope) == 1).all()
    assert quantization.latent_range(quantizer, kernel.shape) is None
    policy = policies.uniform("binary")
    mixed = dataclasses.replace(policy, stem=quantizer)
    params = {"stem": {"conv": {"kernel": kernel}}}
    kept = learning.project(params, mixed)["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(kept, kernel)
    kept = learning.project(params, policy)["stem"]["conv"]["kernel"]
    assert jnp.abs(kept).max() == 1
