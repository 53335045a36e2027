"""Masks: sampling and its gradient, algebra, and batched application to any model."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from shared import masking
from shared.errors import UsageError
from shared.layers.conv import conv, init_conv
from shared.layers.dropout import dropout
from shared.layers.linear import init_linear, linear
from shared.layers.norm import batch_norm, init_batch_norm
from shared.model import Model, Variables, from_linen, from_nnx

K = 4
SCHEDULES = ("vmap", "loop", "shard")


def ours(axis_name=None, rate=0.25, *, convolution=False):
    """Build a small net of our own layers with batch norm and dropout."""

    def init(key):
        keys = jax.random.split(key, 3)
        norm, state = init_batch_norm(6)
        params = {
            "in": init_linear(keys[0], 4, 6),
            "norm": norm,
            "out": init_linear(keys[1], 6, 3),
        }
        if convolution:
            params["conv"] = init_conv(keys[2], (3, 1), 4, 4, bias=False)
        return Variables(params, state)

    def apply(variables, x, *, train=False, key=None):
        params, state = variables
        if convolution:
            x = conv(params["conv"], x[:, :, None])[:, :, 0]
        h = linear(params["in"], x)
        h, state = batch_norm(
            params["norm"], state, h, train=train, axis_name=axis_name
        )
        h = dropout(jax.nn.relu(h), rate, train=train, key=key)
        return linear(params["out"], h), state

    return Model(init, apply)


class Linen(nn.Module):
    axis_name: str | None
    rate: float

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Dense(6)(x)
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x)
        x = nn.Dropout(self.rate, deterministic=not train)(nn.relu(x))
        return nn.Dense(3)(x)


class Nnx(nnx.Module):
    def __init__(self, axis_name, rate, *, rngs):
        self.inward = nnx.Linear(4, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, axis_name=axis_name, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.out = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(nnx.relu(self.norm(self.inward(x)))))


def build(name, axis_name=None, rate=0.25):
    if name == "ours":
        return ours(axis_name, rate)
    if name == "linen":
        example = jax.ShapeDtypeStruct((1, 4), jnp.float32)
        return from_linen(Linen(axis_name, rate), example)
    return from_nnx(functools.partial(Nnx, axis_name, rate))


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)


@pytest.fixture(scope="module")
def cases():
    """Return for each kind of model: variables, masks of all its kernels.

    Drawn by NumPy, which compiles nothing.
    """
    rng, found = np.random.default_rng(1), {}

    def weights(leaf):
        drawn = rng.normal(size=leaf.shape)
        return jnp.asarray(drawn if leaf.ndim == 2 else np.exp(drawn), jnp.float32)

    def mask(logits):
        kept = rng.uniform(size=(K, *logits.shape)) < 0.6
        return jnp.asarray(kept, jnp.float32)

    for name in ("ours", "linen", "nnx"):
        shapes = jax.eval_shape(build(name).init, jax.random.key(1))
        variables = jax.tree.map(weights, shapes)
        logits = masking.init_logits(variables.params, lambda path, _: "kernel" in path)
        assert len(jax.tree.leaves(logits)) == 2
        found[name] = variables, jax.tree.map(mask, logits)
    return found


def apply_jitted(model, **options):
    def apply(variables, masks, x, key=None):
        return masking.batched_apply(model, variables, masks, x, key=key, **options)

    return jax.jit(apply)


# Logits and samples


def test_init_logits_follow_the_filter():
    params = {
        "a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "n": jnp.arange(2),
    }
    logits = masking.init_logits(params, lambda path, _: path == "a/kernel", value=1.5)
    assert logits["a"]["bias"] is None and logits["n"] is None
    np.testing.assert_array_equal(logits["a"]["kernel"], np.full((2, 3), 1.5))
    every = masking.init_logits(params)
    assert every["n"] is None and len(jax.tree.leaves(every)) == 2


def test_samples_are_exact_and_as_frequent_as_their_probability(key):
    logits = {"w": jnp.array([[-3.0, -0.5, 0.0, 0.5, 2.0]]), "b": None}
    masks = masking.sample(logits, 20000, key=key)
    assert masks["b"] is None and masks["w"].shape == (20000, 1, 5)
    assert set(np.unique(masks["w"])) == {0.0, 1.0}
    expected = jax.nn.sigmoid(logits["w"])
    np.testing.assert_allclose(masks["w"].mean(0), expected, atol=0.015)
    flat = np.asarray(masks["w"][:, 0])
    correlation = np.corrcoef(flat.T) - np.eye(5)
    assert np.abs(correlation).max() < 0.03


def test_gradient_is_that_of_the_relaxation():
    uniform = jnp.array([0.2, 0.6, 0.9, 0.4])
    logits, tau = jnp.array([0.3, -1.0, 2.0, 0.0]), 0.7
    pick = jnp.array([1.0, -2.0, 0.5, 3.0])

    def value(logits, hard):
        masks = masking.sample(logits, uniform=uniform, tau=tau, hard=hard)
        return jnp.sum(masks * pick)

    s = jax.nn.sigmoid((logits + jnp.log(uniform / (1 - uniform))) / tau)
    gradient = jax.jit(jax.grad(value), static_argnums=1)
    gradients = [gradient(logits, hard) for hard in (True, False)]
    for gradient in gradients:
        np.testing.assert_allclose(gradient, pick * s * (1 - s) / tau, rtol=1e-5)
    numeric = [
        (value(logits.at[i].add(1e-2), False) - value(logits.at[i].add(-1e-2), False))
        for i in range(4)
    ]
    np.testing.assert_allclose(gradients[0], np.array(numeric) / 2e-2, rtol=1e-2)
    hard = masking.sample(logits, uniform=uniform, tau=tau)
    np.testing.assert_array_equal(hard, s > 0.5)


def test_noise_can_be_passed_in_one_or_two_draws(key):
    logits = {"w": jnp.zeros((3, 2)), "b": None}
    two = jax.random.uniform(key, (2, 5, 3, 2), minval=0.01, maxval=0.99)
    gumbel = -jnp.log(-jnp.log(two))
    masks = masking.sample(logits, 5, uniform={"w": two, "b": None})
    np.testing.assert_array_equal(masks["w"], gumbel[1] - gumbel[0] > 0)
    masks = masking.sample(logits, 5, uniform={"w": two[0], "b": None})
    np.testing.assert_array_equal(masks["w"], two[0] > 0.5)


def test_wrong_sampling(key):
    logits = {"w": jnp.zeros((3, 2))}
    uniform = {"w": jnp.full((5, 3, 2), 0.5)}
    for options, name in (
        ({}, "key, uniform"),
        ({"key": key, "uniform": uniform}, "key, uniform"),
        ({"uniform": {"v": uniform["w"]}}, "uniform"),
        ({"uniform": {"w": uniform["w"][:3]}}, "uniform"),
        ({"key": key, "tau": 0.0}, "tau"),
    ):
        with pytest.raises(UsageError, match=name):
            masking.sample(logits, 5, **options)
    with pytest.raises(UsageError, match="n: got 0"):
        masking.sample(logits, 0, key=key)
    with pytest.raises(UsageError, match="where"):
        masking.init_logits(logits, lambda path, _: "missing" in path)
    with pytest.raises(UsageError, match="floating"):
        masking.init_logits({"n": jnp.arange(2)}, lambda path, _: True)


# Algebra


def test_algebra_of_masks():
    a = {"w": jnp.array([1, 1, 0, 0]) > 0, "v": jnp.array([True]), "u": None}
    b = {"w": jnp.array([1.0, 0.0, 1.0, 0.0]), "v": None, "u": jnp.array([1.0])}
    either, both = masking.union(a, b), masking.intersection(a, b)
    np.testing.assert_array_equal(either["w"], [True, True, True, False])
    assert either["v"] is a["v"] and either["u"] is b["u"]
    np.testing.assert_array_equal(both["w"], [True, False, False, False])
    assert both["v"] is None and both["u"] is None
    np.testing.assert_array_equal(masking.invert(a)["w"], [False, False, True, True])
    assert int(masking.total(masking.count(a))) == 3
    keep = masking.threshold({"w": jnp.array([-1.0, 0.0, 1.0])})
    np.testing.assert_array_equal(keep["w"], [False, False, True])
    keep = masking.threshold(jnp.array([-1.0, 0.0, 1.0]), inclusive=True)
    np.testing.assert_array_equal(keep, [False, True, True])


def test_similarities_of_masks():
    as_mask = lambda *bits: jnp.array(bits, bool)
    a = {"w": as_mask(1, 1, 1, 0), "v": as_mask(0, 0), "u": None}
    b = {"w": as_mask(1, 0, 0, 0), "v": as_mask(0, 1), "u": as_mask(1, 1)}
    c = {"w": as_mask(0, 1, 0, 1), "v": as_mask(0, 0), "u": None}
    for function, each, total in (
        (masking.iou, {"w": 1 / 3, "v": 0}, 1 / 4),
        (masking.iomin, {"w": 1, "v": 0}, 1),
        (masking.remaining, {"w": 1, "v": 0}, 1 / 2),
    ):
        ratios, ratio = function(a, b)
        assert ratios["u"] is None
        np.testing.assert_allclose([ratios["w"], ratios["v"]], [each["w"], each["v"]])
        np.testing.assert_allclose(ratio, total)
    ratios, ratio = masking.sharing(a, [b, c])
    np.testing.assert_allclose([ratios["w"], ratio], [2 / 3, 2 / 3])
    with pytest.raises(UsageError, match="others"):
        masking.sharing(a, [])
    with pytest.raises(UsageError, match="one structure"):
        masking.iou(a, {"w": a["w"]})


def test_linear_penalty_pushes_with_constant_force():
    logits = {"w": jnp.array([[1.0, -2.0]]), "b": None, "v": jnp.array([3.0])}
    scales = {"w": jnp.float32(0.5), "b": None, "v": jnp.float32(2.0)}
    np.testing.assert_allclose(masking.linear_penalty(logits), 2.0)
    np.testing.assert_allclose(masking.linear_penalty(logits, scales), 5.5)
    force = jax.grad(masking.linear_penalty)(logits, scales)
    np.testing.assert_allclose(force["w"], [[0.5, 0.5]])


def test_apply_masks_leaves_others_alone():
    params = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "rest": {"b": jnp.ones(2)}}
    masked = masking.apply_masks(
        params, {"w": jnp.array([[True, False]]), "rest": None}
    )
    np.testing.assert_array_equal(masked["w"], [[1, 0], [3, 0]])
    assert masked["rest"]["b"] is params["rest"]["b"]
    for wrong, name in (
        ({"w": jnp.ones((2, 3)), "rest": None}, r"masks\[w\]"),
        ({"w": jnp.ones(2), "rest": None}, r"masks\[w\]"),
        ({"w": None, "rest": jnp.ones(2)}, r"masks\[rest\]"),
        ({"v": jnp.ones((2, 2)), "rest": None}, "masks"),
    ):
        with pytest.raises(UsageError, match=name):
            masking.apply_masks(params, wrong)


# Batched application


@pytest.mark.parametrize("name", ["ours", "linen", "nnx"])
def test_masks_on_groups_equal_separate_calls(cases, x, name, key):
    """In evaluation, with every schedule, and the state comes back as it was."""
    model, (variables, masks) = build(name), cases[name]
    apply = jax.jit(lambda v, x: model.apply(v, x)[0])
    expected = []
    for k in range(K):
        mask = jax.tree.map(lambda m: m[k], masks)  # noqa: B023
        params = masking.apply_masks(variables.params, mask)
        expected.append(apply(variables._replace(params=params), x[2 * k : 2 * k + 2]))
    assert not np.allclose(expected[0], apply(variables, x[:2]), atol=1e-3)
    for how in SCHEDULES:
        outputs, state = apply_jitted(model, how=how)(variables, masks, x)
        np.testing.assert_allclose(
            outputs, np.concatenate(expected), rtol=1e-5, atol=1e-6
        )
        chex.assert_trees_all_equal(state, variables.state)
    ones = jax.tree.map(jnp.ones_like, masks)
    outputs, _ = apply_jitted(model)(variables, ones, x)
    np.testing.assert_allclose(outputs, apply(variables, x), rtol=1e-5, atol=1e-6)


def stateless():
    """Build a net with dropout but without state."""
    init = lambda key: Variables(init_linear(key, 4, 3))

    def apply(variables, x, *, train=False, key=None):
        y = linear(variables.params, x)
        return {"y": dropout(y, 0.5, train=train, key=key)}, variables.state

    return Model(init, apply)


def test_schedules_agree_with_gradients_noise_and_any_batch_axis(x, key):
    """In training, on trees of time-major arrays."""
    plain = stateless()
    model = plain._replace(apply=lambda v, x, **kw: plain.apply(v, x["x"], **kw))
    variables = model.init(key)
    x = {"x": jnp.stack([x, 2 * x, x + 1])}
    masks = jax.tree.map(
        lambda p: jnp.stack([jnp.cos(7 * k + 30 * p) > 0 for k in range(K)]) * 1.0,
        variables.params,
    )

    def loss(masks, how):
        outputs, _ = masking.batched_apply(
            model, variables, masks, x, batch_axis=1, train=True, key=key, how=how
        )
        return jnp.sum(jnp.sin(outputs["y"])), outputs["y"]

    run = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    gradient, y = run(masks, "vmap")
    assert y.shape == (3, 8, 3)
    for how in SCHEDULES[1:]:
        its_gradient, other = run(masks, how)
        np.testing.assert_allclose(y, other, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(gradient, its_gradient, rtol=1e-4, atol=1e-5)

    keys = jax.random.split(key, K)
    alone = jax.jit(lambda v, x, key: model.apply(v, x, train=True, key=key)[0])
    for k in (0, 3):
        params = jax.tree.map(lambda p, m: p * m[k], variables.params, masks)  # noqa: B023
        part = {"x": x["x"][:, 2 * k : 2 * k + 2]}
        own = alone(Variables(params), part, keys[k])
        np.testing.assert_allclose(y[:, 2 * k : 2 * k + 2], own["y"], rtol=1e-5)


def test_gradient_reaches_the_logits_by_the_formula(x):
    """dL/dl = Σ_k w dL/d(w m_k) s_k (1 - s_k), by hand for a linear model."""
    model = stateless()
    rng = np.random.default_rng(2)
    w = {"kernel": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)}
    uniform = {"kernel": jnp.asarray(rng.uniform(size=(K, 4, 3)), jnp.float32)}
    logits = {"kernel": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)}
    pick = jnp.cos(jnp.arange(24.0)).reshape(8, 3)

    def loss(logits):
        masks = masking.sample(logits, K, uniform=uniform)
        outputs, _ = masking.batched_apply(model, Variables(w), masks, x)
        return jnp.sum(outputs["y"] * pick)

    u, expected = np.asarray(uniform["kernel"]), np.zeros((4, 3))
    for k in range(K):
        rows = slice(2 * k, 2 * k + 2)
        s = 1 / (1 + np.exp(-np.asarray(logits["kernel"])) * (1 - u[k]) / u[k])
        to_weights = np.asarray(x)[rows].T @ np.asarray(pick)[rows]
        expected += np.asarray(w["kernel"]) * to_weights * s * (1 - s)
    np.testing.assert_allclose(
        jax.jit(jax.grad(loss))(logits)["kernel"], expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", ["ours", "linen", "nnx"])
def test_training_pools_batch_norm_over_the_groups(cases, x, name, key):
    """With equal masks: the outputs and statistics of the whole batch."""
    variables, masks = cases[name]
    same = jax.tree.map(lambda m: jnp.broadcast_to(m[:1], m.shape), masks)
    mask = jax.tree.map(lambda m: m[0], masks)
    whole = variables._replace(params=masking.apply_masks(variables.params, mask))
    plain, pooled = build(name, rate=0.0), build(name, "mask", rate=0.0)
    alone = jax.jit(lambda v, x: plain.apply(v, x, train=True, key=key))
    expected, state = alone(whole, x)
    assert not np.allclose(expected[:2], alone(whole, x[:2])[0], atol=1e-2)
    for how in ("auto", "shard"):
        apply = apply_jitted(pooled, train=True, how=how)
        outputs, new = apply(variables, same, x, key)
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
        # The running variance counts the rows of the whole batch, not of a group.
        chex.assert_trees_all_close(new, state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["ours", "linen", "nnx"])
def test_training_refuses_statistics_of_single_groups(cases, x, name, key):
    variables, masks = cases[name]
    with pytest.raises(UsageError, match="axis_name='mask'"):
        masking.batched_apply(build(name), variables, masks, x, train=True, key=key)
    with pytest.raises(UsageError, match="how: got 'loop'"):
        masking.batched_apply(
            build(name, "mask"), variables, masks, x, train=True, key=key, how="loop"
        )


def test_models_own_errors_pass_through(cases, x):
    def broken(variables, x, **_):
        raise ValueError("mine")

    model = Model(ours().init, broken)
    with pytest.raises(ValueError, match="mine"):
        masking.batched_apply(model, *cases["ours"], x, train=True)


def test_a_model_that_pools_in_evaluation_takes_vmap_only(x, key):
    def apply(variables, x, **_):
        y = linear(variables.params, x)
        return y - jax.lax.pmean(y, "mask"), variables.state

    model = Model(stateless().init, apply)
    variables = model.init(key)
    masks = jax.tree.map(lambda p: jnp.ones((K, *p.shape)), variables.params)
    outputs, _ = masking.batched_apply(model, variables, masks, x, how="vmap")
    assert outputs.shape == (8, 3)
    with pytest.raises(UsageError, match="how: got 'loop'"):
        masking.batched_apply(model, variables, masks, x, how="loop")


def test_wrong_batches_and_masks(cases, x):
    model, (variables, masks) = ours(), cases["ours"]
    call = lambda masks, x, **options: masking.batched_apply(
        model, variables, masks, x, **options
    )
    kernel = masks["in"]["kernel"]
    for changed, data, options, name in (
        (masks, x[:7], {}, "batch: got 7"),
        (masks, x, {"batch_axis": 2}, "batch_axis: got 2"),
        (masks, x, {"how": "map"}, "how: got 'map'"),
        ({**masks, "in": {"kernel": kernel[:2], "bias": None}}, x, {}, "masks"),
        ({**masks, "in": {"kernel": kernel[:, :3], "bias": None}}, x, {}, "in/kernel"),
        ({**masks, "more": None}, x, {}, "masks"),
        (jax.tree.map(lambda m: None, masks), x, {}, "masks"),
    ):
        with pytest.raises(UsageError, match=name):
            call(changed, data, **options)


def test_auto_loops_over_convolutions_on_a_cpu_only(cases, x, key):
    model = ours(convolution=True)
    variables = jax.jit(model.init)(key)
    masks = jax.tree.map(
        lambda p: jnp.stack([jnp.full_like(p, k / K) for k in range(K)]),
        variables.params,
    )
    images = jnp.stack([x] * 3, axis=1)

    def count(how, model, variables, masks, x):
        call = lambda: masking.batched_apply(model, variables, masks, x, how=how)[0]
        return str(jax.make_jaxpr(call)()).count("conv_general_dilated[")

    arguments = (model, variables, masks, images)
    assert count("auto", *arguments) == K and count("vmap", *arguments) == 1
    looped, together = (
        apply_jitted(model, how=how)(*arguments[1:])[0] for how in ("auto", "vmap")
    )
    np.testing.assert_allclose(looped, together, rtol=1e-4, atol=1e-5)
    plain = str(
        jax.make_jaxpr(lambda: masking.batched_apply(ours(), *cases["ours"], x)[0])()
    )
    assert plain.count("dot_general[") == 2
