"""The residual network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask.models.resnet import STAGES, resnet
from modmask.names import named
from shared import masking
from shared.errors import UsageError
from shared.model import Variables
from tests.quick import quick


def drawn(model, seed=0):
    """Return random variables, variances positive."""
    random = np.random.default_rng(seed)
    draw = lambda leaf: jnp.asarray(np.abs(random.normal(size=leaf.shape)), leaf.dtype)
    return jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0)))


def pixels(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), "float32")


def test_the_published_size_and_names():
    params = jax.eval_shape(resnet(110, 3, 10).init, jax.random.key(0)).params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1_730_714
    found = named(params)
    assert len(found) == 335
    assert {
        "features_0_weight",
        "features_3_17_layers_4_bias",
        "features_5_0_downsample_1_weight",
    } <= set(found)
    assert "features_3_0_downsample_0_weight" not in found


def test_kernels_keep_the_scale_of_their_outputs_and_blocks_differ(key):
    params = quick(resnet(20, 3, 10).init)(key).params["features"]
    for stage, width in zip(STAGES, (16, 32, 64), strict=True):
        kernels = [block["layers"]["3"]["kernel"] for block in params[stage]]
        deviation = (2 / (9 * width)) ** 0.5
        np.testing.assert_allclose(np.std(kernels), deviation, rtol=0.05)
        assert np.all(kernels[1] != kernels[2])
    assert set(params["4"][0]) - set(params["4"][1]) == {"downsample"}


def test_stages_halve_the_image_and_shortcuts_pass_it_on():
    """Without branches the network is a chain of shortcuts."""
    model = resnet(8, 1, 1, width=1)
    variables = drawn(model)
    params, state = jax.tree.map(jnp.ones_like, variables)
    state = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (0.0 if path[-1].key == "mean" else 1 - 1e-5), state
    )
    middle = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    features = {**params["features"], "0": {"kernel": middle}}
    zero = lambda layer: jax.tree.map(jnp.zeros_like, layer)
    features["1"] = {**features["1"], "offset": jnp.zeros(1)}
    for stage in STAGES:
        (block,) = features[stage]
        block = {
            **block,
            "layers": {**block["layers"], "4": zero(block["layers"]["4"])},
        }
        if "downsample" in block:
            conv, norm = block["downsample"]["0"], block["downsample"]["1"]
            block["downsample"] = {
                "0": conv,
                "1": {**norm, "offset": 0 * norm["offset"]},
            }
        features[stage] = [block]
    out = {"kernel": jnp.ones((4, 1)), "bias": jnp.zeros(1)}
    x = pixels(2, 8, 8, 1)
    run = quick(lambda own, x: model.apply(own, x)[0])
    y = run(Variables({"features": features, "out_layer": out}, state), x)
    # Strides of 2 and 2 leave every fourth pixel; channels double from one to four.
    left = np.maximum(np.asarray(x)[:, ::4, ::4, 0], 0)
    np.testing.assert_allclose(y[:, 0], 8 * np.mean(left, axis=(1, 2)), rtol=1e-5)


def test_training_moves_running_statistics_and_evaluation_only_reads_them():
    model = resnet(8, 2, 3, width=2)
    variables, x = drawn(model), pixels(4, 8, 8, 2)
    run = quick(lambda x: [model.apply(variables, x, train=t) for t in (True, False)])
    (trained, new), (evaluated, same) = run(x)
    jax.tree.map(np.testing.assert_array_equal, same, variables.state)
    assert jax.tree.structure(new) == jax.tree.structure(variables.state)
    kernel = variables.params["features"]["0"]["kernel"]
    y = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    old = variables.state["1"]["mean"]
    mean = 0.9 * old + 0.1 * jnp.mean(y, (0, 1, 2))
    np.testing.assert_allclose(new["1"]["mean"], mean, rtol=1e-4)
    for one, other in zip(
        jax.tree.leaves(new), jax.tree.leaves(variables.state), strict=True
    ):
        assert np.all(one != other)
    assert not np.allclose(trained, evaluated)


def test_groups_in_training_pool_the_whole_batch():
    plain = resnet(8, 2, 3, width=2)
    grouped = resnet(8, 2, 3, width=2, axis_name="mask")
    variables, x = drawn(plain), pixels(4, 8, 8, 2)
    ones = jax.tree.map(lambda leaf: jnp.ones((2, *leaf.shape)), variables.params)

    @quick
    def run(variables, x):
        whole = plain.apply(variables, x, train=True)
        return whole, masking.batched_apply(grouped, variables, ones, x, train=True)

    whole, groups = run(variables, x)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, whole, groups)


@pytest.mark.parametrize("depth", (2, 9, 109))
def test_other_depths_are_refused(depth):
    with pytest.raises(UsageError, match="6 n"):
        resnet(depth, 3, 10)
