"""The transformer: its two ways to decode agree, and masks hide what they should."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask.models.symbols import length_of, likeliest
from modmask.models.transformer import transformer
from modmask.models.transformer_layers import Mode, encode
from shared.errors import UsageError

V_IN, V_OUT, MAX_OUT = 5, 4, 3


def build(**changes):
    sizes = {"width": 8, "ff_multiplier": 1.5, "tied": False, "heads": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "max_out": MAX_OUT}
    vocabularies = changes.pop("vocabularies", (V_IN, V_OUT))
    return transformer(*vocabularies, **{**sizes, **layers, **changes})


@pytest.fixture(scope="module")
def variables():
    return quick(build().init)(jax.random.key(1))


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    return {
        "source": jnp.asarray(rng.integers(0, V_IN, (4, 4)), jnp.uint8),
        "source_length": jnp.array([4, 1, 2, 3]),
        "target": jnp.asarray(rng.integers(0, V_OUT, (4, MAX_OUT)), jnp.uint8),
        "target_length": jnp.array([3, 1, 2, 3]),
    }


def quick(fn, **how):
    return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 0}, **how)


@functools.cache
def program(**changes):
    """Compile a network once."""
    return quick(build(**changes).apply, static_argnames="train")


def run(variables, x, *, train=False, key=None, **changes):
    return program(**changes)(variables, x, train=train, key=key)[0]


def without_target(x):
    return {name: x[name] for name in ("source", "source_length")}


@pytest.mark.parametrize("tied", (False, True))
def test_greedy_decoding_with_a_cache_is_full_recomputation(x, tied):
    vocabularies = (V_IN, V_IN if tied else V_OUT)
    changes = {"tied": tied, "vocabularies": vocabularies, "decoder_layers": 2}
    with jax.enable_x64(True):
        single = quick(build(**changes).init)(jax.random.key(1))
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), single)
        greedy = run(variables, without_target(x), **changes)
        own = likeliest(greedy["logits"])
        np.testing.assert_array_equal(length_of(own, vocabularies[1]), greedy["length"])
        # The symbols that greedy decoding wrote, read as a target.
        fed = {"target": own[:, :MAX_OUT], "target_length": jnp.full(4, MAX_OUT)}
        forced = run(variables, {**x, **fed}, **changes)["logits"]
        np.testing.assert_allclose(greedy["logits"], forced, rtol=1e-9, atol=1e-12)


def test_no_step_sees_what_follows(variables, x):
    logits = run(variables, x)["logits"]
    changed = {**x, "target": x["target"].at[:, 1].set((x["target"][:, 1] + 1) % V_OUT)}
    other = run(variables, changed)["logits"]
    np.testing.assert_array_equal(other[:, :2], logits[:, :2])
    assert not np.allclose(other[0, 2], logits[0, 2])


def test_padding_does_not_matter(variables, x):
    inside = jnp.arange(4)[None, :] < x["source_length"][:, None]
    other = {**x, "source": jnp.where(inside, x["source"], 3)}
    for given in (lambda x: x, without_target):
        logits = run(variables, given(x))["logits"]
        np.testing.assert_array_equal(run(variables, given(other))["logits"], logits)


def test_a_sequence_of_one_symbol(variables, x):
    alone = {name: values[1:2] for name, values in without_target(x).items()}
    alone["source"] = alone["source"][:, :1]
    expected = run(variables, without_target(x))["logits"][1:2]
    logits = run(variables, alone)["logits"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


def test_rematerialised_layers_have_the_same_gradients(variables):
    layers = variables.params["trafo"]["encoder_layers"]
    start = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 8)), jnp.float32)
    inside, key = jnp.ones((2, 3), bool), jax.random.key(0)

    def value(layers, remat):
        mode = Mode(2, 0.5, key, remat)
        return jnp.sum(encode(layers, start, inside, mode) ** 3)

    gradient = quick(jax.grad(value), static_argnums=1)
    kept, again = gradient(layers, False), gradient(layers, True)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, kept, again)
    texts = [str(jax.make_jaxpr(value, static_argnums=1)(layers, r)) for r in (0, 1)]
    assert ["remat" in text or "checkpoint" in text for text in texts] == [False, True]


def test_dropout_is_honoured_in_training_alone(variables, x):
    key = jax.random.key(0)
    quiet = run(variables, x)["logits"]
    assert not np.allclose(run(variables, x, train=True, key=key)["logits"], quiet)
    np.testing.assert_array_equal(run(variables, x, key=key)["logits"], quiet)
    off = run(variables, x, train=True, dropout=0.0)
    np.testing.assert_array_equal(off["logits"], quiet)
    with pytest.raises(UsageError, match="key"):
        run(variables, x, train=True)


@pytest.mark.parametrize(
    ("sizes", "count"),
    (
        ((13, 6, 100, 2.0, False, 4, 3), 607_607),
        ((95, 95, 512, 4.0, True, 8, 6), 44_150_784),
    ),
)
def test_published_sizes(sizes, count):
    v_in, v_out, width, multiplier, tied, heads, layers = sizes
    model = build(
        vocabularies=(v_in, v_out),
        width=width,
        ff_multiplier=multiplier,
        tied=tied,
        heads=heads,
        encoder_layers=layers,
        decoder_layers=layers,
    )
    params = jax.eval_shape(model.init, jax.random.key(0)).params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_attention_starts_within_its_bound(variables):
    kernels = variables.params["trafo"]["encoder_layers"][0]["self_attn"]
    bound = (6 / 16) ** 0.5
    largest = max(float(jnp.abs(k["kernel"]).max()) for k in kernels.values())
    assert 0.8 * bound < largest <= bound


@pytest.mark.parametrize(
    ("changes", "argument"),
    (
        ({"heads": 3}, "width"),
        ({"width": 7, "heads": 1}, "width"),
        ({"tied": True}, "v_out"),
        ({"max_out": 0}, "max_out"),
        ({"dropout": -0.1}, "dropout"),
    ),
)
def test_wrong_sizes(changes, argument):
    with pytest.raises(UsageError, match=argument):
        build(**changes)
