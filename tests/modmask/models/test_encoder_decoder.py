"""The LSTM encoder-decoder: what it reads, and what it must not look at."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask.models.encoder_decoder import encoder_decoder
from modmask.models.symbols import append_end, length_of, likeliest, prepend_start
from shared.errors import UsageError

V_IN, V_OUT, MAX_OUT = 5, 4, 3


def build(**changes):
    sizes = {"hidden": 6, "layers": 2, "embedding": 3, "dropout": 0.5}
    return encoder_decoder(V_IN, V_OUT, max_out=MAX_OUT, **{**sizes, **changes})


@pytest.fixture(scope="module")
def variables():
    return quick(build().init)(jax.random.key(1))


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    return {
        "source": jnp.asarray(rng.integers(0, V_IN, (6, 4)), jnp.uint8),
        "source_length": jnp.array([4, 1, 2, 3, 1, 4]),
        "target": jnp.asarray(rng.integers(0, V_OUT, (6, MAX_OUT)), jnp.uint8),
        "target_length": jnp.array([3, 1, 2, 3, 1, 2]),
    }


def quick(fn, **how):
    return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 0}, **how)


@functools.cache
def program(**changes):
    """Compile a network once."""
    return quick(build(**changes).apply, static_argnames="train")


def run(variables, x, *, train=False, key=None, **changes):
    return program(**changes)(variables, x, train=train, key=key)[0]


def test_symbols():
    ids, length = jnp.array([[1, 2], [3, 0]], jnp.uint8), jnp.array([2, 1])
    ended = append_end(ids, length, 9)
    np.testing.assert_array_equal(ended, [[1, 2, 9], [3, 9, 0]])
    np.testing.assert_array_equal(prepend_start(ids, 9), [[9, 1, 2], [9, 3, 0]])
    np.testing.assert_array_equal(length_of(ended, 9), length)
    np.testing.assert_array_equal(length_of(ended, 7), [3, 3])


def test_teacher_is_chosen_row_by_row(variables, x):
    mixed = jnp.array([True, False, True, False, True, False])
    forced, free, both = (
        run(variables, {**x, "teacher": teacher})
        for teacher in (jnp.ones(6, bool), jnp.zeros(6, bool), mixed)
    )
    assert not np.allclose(forced["logits"], free["logits"])
    expected = jnp.where(mixed[:, None, None], forced["logits"], free["logits"])
    np.testing.assert_allclose(both["logits"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(forced["length"], x["target_length"])
    np.testing.assert_array_equal(run(variables, x)["logits"], forced["logits"])


def test_free_running_ignores_the_reference(variables, x):
    free = run(variables, {**x, "teacher": jnp.zeros(6, bool)})
    given = {name: x[name] for name in ("source", "source_length")}
    np.testing.assert_allclose(run(variables, given)["logits"], free["logits"])


def test_free_running_reads_its_own_symbols(variables, x):
    given = {name: x[name] for name in ("source", "source_length")}
    free = run(variables, given)
    assert free["logits"].shape == (6, MAX_OUT + 1, V_OUT + 1)
    own = likeliest(free["logits"])
    np.testing.assert_array_equal(length_of(own, V_OUT), free["length"])
    fed = {**x, "target": own[:, :MAX_OUT]}
    forced = run(variables, fed)
    np.testing.assert_allclose(forced["logits"], free["logits"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("skip", (False, True))
def test_padding_does_not_matter_and_the_end_symbol_does(variables, x, skip):
    changes = {"encoder_skip_eos": skip}
    logits = run(variables, x, **changes)["logits"]
    inside = jnp.arange(4)[None, :] < x["source_length"][:, None]
    other = {**x, "source": jnp.where(inside, x["source"], 3)}
    np.testing.assert_array_equal(run(variables, other, **changes)["logits"], logits)
    # Symbols behind the end cannot be told from none at all, the end symbol can.
    table = variables.params["encoder"]["embedding"]["table"].at[V_IN].set(0.5)
    encoder = {**variables.params["encoder"], "embedding": {"table": table}}
    changed = variables._replace(params={**variables.params, "encoder": encoder})
    same = np.allclose(run(changed, x, **changes)["logits"], logits)
    assert same == skip


def test_a_sequence_of_one_symbol(variables, x):
    alone = {name: values[1:2] for name, values in x.items()}
    alone["source"] = alone["source"][:, :1]
    expected = run(variables, x)["logits"][1:2]
    np.testing.assert_allclose(run(variables, alone)["logits"], expected, rtol=1e-5)


def test_dropout_in_training_alone(variables, x):
    quiet = run(variables, x)["logits"]
    keys = jax.random.split(jax.random.key(0), 2)
    first, again, other = (
        run(variables, x, train=True, key=key)["logits"]
        for key in (keys[0], keys[0], keys[1])
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other) and not np.allclose(first, quiet)
    np.testing.assert_array_equal(run(variables, x, key=keys[0])["logits"], quiet)
    with pytest.raises(UsageError, match="key"):
        run(variables, x, train=True)


def test_published_size():
    model = encoder_decoder(
        13, 6, hidden=200, layers=2, embedding=16, dropout=0.5, max_out=48
    )
    params = jax.eval_shape(model.init, jax.random.key(0)).params
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    assert sum(sizes) == 990_543


@pytest.mark.parametrize("changes", ({"hidden": 0}, {"dropout": 1.0}, {"layers": 0}))
def test_wrong_sizes(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        build(**changes)
