"""Reference values of mask samples and of single layers under them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from modmask.models import lstm as recurrent
from modmask.names import original_name
from shared import masking
from shared.layers.conv import conv
from shared.layers.linear import linear
from shared.layers.norm import batch_norm, layer_norm
from shared.layers.recurrent import LSTMState, lstm_cell
from shared.model import Model, Variables
from tests.parity.modmask.convert import from_tree, nchw, nhwc, to_tree
from tests.parity.runner import Tolerance

COMPILER = {"xla_backend_optimization_level": 0}
SETTINGS = ("n_samples", "eps", "tau", "hard", "logits", "uniform", "cot")
INPUTS = ("in/", "param/", "logit/", "uniform/", "cot/")


def tolerance(name, npz, dtype):
    if name in SETTINGS or name.startswith(INPUTS):
        return None
    if dtype == np.float64:
        return Tolerance(1e-9, 1e-11)
    return Tolerance(1e-3 if name.startswith("grad_") else 2e-4, 1e-5)


def _compared(npz, ours):
    return {name: (value, npz[name]) for name, value in ours.items() if name in npz}


def _run_gumbel(npz, dtype):
    logits, uniform, cot = (
        jnp.asarray(npz[name], dtype) for name in ("logits", "uniform", "cot")
    )
    options = {"tau": float(npz["tau"]), "hard": bool(npz["hard"])}

    def outputs(logits):
        noise = masking.gumbel_noise(uniform)
        return masking.gumbel_sigmoid(logits, noise, **options)

    out, pullback = jax.vjp(outputs, logits)
    return _compared(npz, {"out": out, "grad_logits": pullback(cot)[0]})


# Layers, differentiated with fixed cotangents.


def samples_of(npz):
    """Return the number of samples; files without it have several."""
    draws = [name for name in npz if name.startswith("uniform/")]
    return int(npz["n_samples"]) if "n_samples" in npz else npz[draws[0]].shape[1]


def draw_masks(npz, logits, prefix="uniform/", *, name=original_name):
    """Return the masks that a file's uniform draws make, or those of an evaluation."""
    samples = samples_of(npz)
    if samples == 0:
        return masking.threshold(logits, inclusive=True)
    dtype = jax.tree.leaves(logits)[0].dtype
    uniform = to_tree(npz, prefix, logits, dtype=dtype, name=name)
    return masking.sample(logits, samples if samples > 1 else None, uniform=uniform)


def apply(npz, model, variables, masks, x, **options):
    """Run a masked layer, by groups of rows if there are several samples."""
    if samples_of(npz) > 1:
        return masking.batched_apply(model, variables, masks, x, **options)
    params = masking.apply_masks(variables.params, masks)
    return model.apply(variables._replace(params=params), x, **options)


def _layer(fn):
    """Return the model without state of `fn(params, x)`."""
    init = lambda key: Variables(())
    return Model(init, lambda variables, x, **_: (fn(variables.params, x), ()))


def _like(npz, ranks, name):
    """Return shapes of the parameters that a file holds, of the ranks given by path."""
    shaped = {path: jax.ShapeDtypeStruct((1,) * n, float) for path, n in ranks.items()}
    return {path: leaf for path, leaf in shaped.items() if f"param/{name(path)}" in npz}


def _differentiated(evaluate, like_of, name=original_name):
    """Make `run` of `evaluate(npz, params, masks, inputs) -> outputs`.

    Args:
        evaluate: maps inputs by name to outputs by name, both in golden layout; outputs
            without a cotangent are constants.
        like_of: `(npz) -> tree` of the parameters' shapes.
        name: of a parameter's path.
    """

    def run(npz, dtype):
        like = like_of(npz)
        params = to_tree(npz, "param/", like, dtype=dtype, name=name)
        logits = to_tree(npz, "logit/", like, dtype=dtype, name=name)
        floating = {k: v for k, v in npz.items() if v.dtype.kind == "f"}
        inputs, cots = (
            {k[len(p) :]: jnp.asarray(v, dtype) for k, v in floating.items() if p in k}
            for p in ("in/", "cot/")
        )

        def loss(params, logits, inputs):
            masks = draw_masks(npz, logits, name=name)
            out = evaluate(npz, params, masks, inputs)
            parts = [jnp.sum(out[key] * cot) for key, cot in cots.items()]
            return sum(parts, jnp.zeros((), dtype)), out

        program = jax.jit(
            jax.grad(loss, (0, 1, 2), has_aux=True), compiler_options=COMPILER
        )
        (of_params, of_logits, of_inputs), out = program(params, logits, inputs)
        ours = {f"out/{key}": value for key, value in out.items()} | out
        ours |= from_tree(of_params, "grad_param/", name=name)
        ours |= from_tree(of_logits, "grad_logit/", name=name)
        ours |= {f"grad_in/{key}": value for key, value in of_inputs.items()}
        return _compared(npz, ours)

    return run


def _linear(npz, params, masks, inputs):
    x = inputs["x"]
    # The groups are cut along all leading axes together.
    y, _ = apply(npz, _layer(linear), Variables(params), masks, _rows(x))
    return {"y": y.reshape(*x.shape[:-1], -1)}


def _rows(x):
    return x.reshape(-1, x.shape[-1])


def _conv(npz, params, masks, inputs):
    height, width = npz["in/x"].shape[-2:]
    options = _geometry(npz["param/weight"].shape[-1], height, npz["out/y"].shape[-2])
    assert (
        _size(width, npz["param/weight"].shape[-1], **options)
        == (npz["out/y"].shape[-1])
    )
    layer = _layer(functools.partial(conv, **options))
    y, _ = apply(npz, layer, Variables(params), masks, nhwc(inputs["x"]))
    return {"y": nchw(y)}


def _size(size, window, stride, padding):
    return (size + 2 * padding - window) // stride + 1


def _geometry(window, size, wanted):
    """Return the stride and padding, which no file holds, of the output's size."""
    for stride in (1, 2):
        for padding in range(window):
            if _size(size, window, stride, padding) == wanted:
                return {"stride": stride, "padding": padding}
    raise ValueError(f"no convolution of {window} makes {wanted} of {size}")


def _batch_norm(npz, params, masks, inputs, *, train):
    x = nhwc(inputs["x"])
    axis_name = "mask" if train and samples_of(npz) > 1 else None

    def layer(variables, x, *, train=False, key=None):
        return batch_norm(*variables, x, train=train, axis_name=axis_name)

    model = Model(lambda key: Variables(()), layer)
    state = _start(npz, x.dtype) if train else _after(npz, x.dtype)
    y, state = apply(npz, model, Variables(params, state), masks, x, train=train)
    after = {"running_mean_after": state["mean"], "running_var_after": state["var"]}
    return {"y": nchw(y), **after}


def _after(npz, dtype):
    mean, var = (npz[f"running_{kind}_after"] for kind in ("mean", "var"))
    return {
        "mean": jnp.asarray(mean, dtype),
        "var": jnp.asarray(var, dtype),
        "count": jnp.zeros((), dtype),
    }


def _start(npz, dtype):
    """Return the running statistics before the pass, which no file holds.

    They are 0 and 1 or drawn; those fit whose mean the batch moves to the stored one.
    """
    x, after = npz["in/x"], npz["running_mean_after"]
    channels = len(after)
    drawn = np.random.RandomState(5).randn(channels)
    starts = {
        "plain": (np.zeros(channels), np.ones(channels)),
        "drawn": (drawn, np.random.RandomState(6).rand(channels) + 0.5),
    }
    moved = lambda mean: 0.9 * mean + 0.1 * x.mean((0, 2, 3))
    gap = lambda start: np.abs(moved(start[0]) - after).max()
    mean, var = min(starts.values(), key=gap)
    return {
        "mean": jnp.asarray(mean, dtype),
        "var": jnp.asarray(var, dtype),
        "count": jnp.zeros((), dtype),
    }


def _layer_norm(npz, params, masks, inputs):
    layer = _layer(functools.partial(layer_norm, form="deviation"))
    return {"y": apply(npz, layer, Variables(params), masks, inputs["x"])[0]}


def _norm_name(path):
    return {"scale": "gamma", "offset": "beta"}[path]


def _cell(npz, params, masks, inputs):
    layer = _layer(lambda params, x: lstm_cell(params, LSTMState(*x[1:]), x[0]))
    x = (inputs["x"], inputs["h"], inputs["c"])
    state, _ = apply(npz, layer, Variables(params), masks, x)
    return state._asdict()


def _cell_name(path):
    return original_name(f"lstm/0/{path}").removeprefix("lstm_cells_0_")


# Sequences: stacks of cells, time-major or not.


def _stack_name(path):
    return original_name(f"lstm/{path}").removeprefix("lstm_")


def _stack_like(npz):
    layers = sum(name.startswith("param/") for name in npz) // 3
    ranks = {"kernel": 2, "recurrent": 2, "bias": 1}
    cell = {path: jax.ShapeDtypeStruct((1,) * n, float) for path, n in ranks.items()}
    return [cell] * layers


def _sequence(npz, params, masks, inputs):
    last = max(name for name in npz if name.startswith("out/h"))
    first, time_major = npz["out/y"][:, -1], npz["out/y"][-1]
    batch_first = first.shape == npz[last].shape and np.allclose(first, npz[last])
    assert batch_first or np.allclose(time_major, npz[last])
    turned = (lambda a: a) if batch_first else (lambda a: jnp.swapaxes(a, 0, 1))
    layer = _layer(recurrent.stack)
    (y, states), _ = apply(npz, layer, Variables(params), masks, turned(inputs["x"]))
    return {"y": turned(y), **_finals(states, "")}


def _finals(states, prefix):
    return {
        f"{prefix}{kind}{i}": value
        for i, state in enumerate(states)
        for kind, value in state._asdict().items()
    }


def _packed(npz, params, masks, inputs):
    layer = _layer(lambda params, x: recurrent.stack(params, x[0], lengths=x[1]))
    x, lengths = jnp.swapaxes(inputs["x"], 0, 1), jnp.asarray(npz["in/lengths"])
    run = lambda lengths: apply(npz, layer, Variables(params), masks, (x, lengths))[0]
    y, states = run(lengths)
    # The published program stops one position early.
    _, early = run(lengths - 1)
    return {
        "y_zero_padded": jnp.swapaxes(y, 0, 1),
        **_finals(states, "final_after_last_token_"),
        **_finals(early, "final_upstream_"),
    }


def _case(prefix, evaluate, like_of, name=original_name, suffix=""):
    def matches(keys, meta, stem):
        return stem.startswith(prefix) and suffix in stem

    return matches, _differentiated(evaluate, like_of, name), tolerance


def _plain(name=original_name, **ranks):
    return lambda npz: _like(npz, ranks, name)


_AFFINE = {"scale": 1, "offset": 1}
_train, _frozen = (functools.partial(_batch_norm, train=flag) for flag in (True, False))

CASES = (
    (lambda keys, meta, stem: stem.startswith("gumbel"), _run_gumbel, tolerance),
    _case("linear_", _linear, _plain(kernel=2, bias=1)),
    _case("conv2d_", _conv, _plain(kernel=4, bias=1)),
    _case("batchnorm_", _train, _plain(**_AFFINE), suffix="train"),
    _case("batchnorm_", _frozen, _plain(**_AFFINE), suffix="frozen"),
    _case("layernorm_", _layer_norm, _plain(_norm_name, **_AFFINE), _norm_name),
    _case(
        "lstm_cell_",
        _cell,
        _plain(_cell_name, kernel=2, recurrent=2, bias=1),
        _cell_name,
    ),
    _case("lstm_seq_", _sequence, _stack_like, _stack_name),
    _case("lstm_packed_", _packed, _stack_like, _stack_name),
)
