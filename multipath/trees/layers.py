"""What the layers of multipath networks compute, and how many operations that takes.

A signal is an array `[batch, ...]` or, where an image is held at several scales, a
tuple of them from the finest to the coarsest. `init`, `apply` and `count_ops` take any
layer of `kinds`. One operation is one multiplication and addition; normalisation,
rectification, pooling, softmax, resizing and biases count nothing.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from multipath.trees import kinds, multiscale
from shared.errors import UsageError
from shared.layers import norm, pooling
from shared.layers.conv import conv
from shared.layers.dropout import dropout
from shared.model import Variables

Signal = Any
"""An array `[batch, ...]`, or a tuple of them from the finest scale to the coarsest."""


class Pass(NamedTuple):
    """What all layers of one pass share.

    Attributes:
        y: one-hot targets `[batch, classes]`; None leaves errors out.
        train: whether moments are the batch's, and dropout is on.
        key: for dropout in training.
        axis_name: mapped axis over which the batch's moments are pooled.
        live: how many of the coarsest scales anything reads; the others are not
            normalised, and their running statistics stay. None stands for all.
    """

    y: Float[Array, "batch classes"] | None = None
    train: bool = False
    key: Array | None = None
    axis_name: Any = None
    live: int | None = None


class Out(NamedTuple):
    """What a layer returns.

    Attributes:
        x: the signal for the next layer.
        state: running statistics; in evaluation those that came in.
        c_err: error cost of each image `[batch]`, or 0.
        c_mod: cost of model complexity, a scalar or `[batch]`.
        correct: whether the largest value is the target's `[batch]`, of layers that
            have an error.
    """

    x: Signal
    state: dict[str, Any]
    c_err: Float[Array, " batch"] | float = 0.0
    c_mod: Float[Array, "..."] | float = 0.0
    correct: Bool[Array, " batch"] | None = None


def init(normals: Float[Array, " n"], layer: kinds.Layer, x: Signal) -> Variables:
    """Initialise a layer.

    Args:
        normals: standard normal numbers, `count_normals` of them or more. One draw for
            all layers of a network compiles many times faster than one for each.
        layer: which one.
        x: a signal of the kind that will come, or `jax.ShapeDtypeStruct`s of it.

    Returns:
        Params `{"w": ..., "b": ...}` and the like; of a Chain `{"c0": {...}, ...}`
        without components that have none. State likewise.

    Raises:
        UsageError: for signals that the layer cannot take.
    """
    match layer:
        case kinds.LinTrans():
            return _init_lin_trans(normals, layer, x)
        case kinds.Conv():
            return _init_conv(normals, layer, x)
        case kinds.MultiscaleConvMax():
            return Variables(multiscale.init_conv_max(normals, layer, x), {})
        case kinds.BatchNorm():
            return _init_batch_norm(x)
        case kinds.MultiscaleBatchNorm():
            return _joined([_init_batch_norm(scale) for scale in x])
        case kinds.Chain(comps):
            return _init_chain(normals, comps, x)
    return Variables({}, {})


def count_normals(layer: kinds.Layer, x: Signal) -> int:
    """Return how many numbers `init` takes: the entries of all kernels."""
    plenty = jax.ShapeDtypeStruct((2**31 - 1,), jnp.float32)
    return _kernel_size(jax.eval_shape(lambda z: init(z, layer, x), plenty).params)


def _kernel_size(params: Any) -> int:
    if not isinstance(params, dict):
        return 0
    own = [value.size for name, value in params.items() if name[0] == "w"]
    return sum(own) + sum(map(_kernel_size, params.values()))


def apply(layer: kinds.Layer, params: dict, state: dict, x: Signal, run: Pass) -> Out:
    """Run a layer.

    Args:
        layer: which one.
        params, state: from `init`.
        x: the signal.
        run: what the layers of this pass share.
    """
    match layer:
        case kinds.Chain(comps):
            return _chain(comps, params, state, x, run)
        case kinds.LinTrans():
            flat = x.reshape(x.shape[0], -1)
            y = jnp.dot(flat, params["w"]) + params["b"][None]
            return Out(y, state, c_mod=_l2(layer.k_l2, _away(layer, params["w"])))
        case kinds.Conv():
            y = conv({"kernel": params["w"], "bias": params["b"]}, x)
            return Out(y, state, c_mod=_l2(layer.k_l2, _away(layer, params["w"])))
        case kinds.MultiscaleConvMax():
            y = multiscale.conv_max(layer, params, x)
            return Out(y, state, c_mod=conv_max_penalty(layer, params))
        case kinds.BatchNorm():
            return Out(*_batch_norm(layer, params, state, x, run))
        case kinds.MultiscaleBatchNorm():
            return Out(*_batch_norms(layer, params, state, x, run))
        case kinds.SquaredError():
            return _error(state, x, run.y, lambda x, y: jnp.sum((x - y) ** 2, -1))
        case kinds.CrossEntropyError(eps):
            return _error(state, x, run.y, lambda x, y: _cross_entropy(x, y, eps))
        case kinds.SuperclassCrossEntropyError(w_cls, eps):
            y = None if run.y is None else run.y @ jnp.asarray(w_cls, run.y.dtype)
            return _error(state, x, y, lambda x, y: _cross_entropy(x, y, eps))
        case kinds.ActivityError(alpha):
            return Out(x, state, c_mod=alpha * jnp.sum(x**2, tuple(range(1, x.ndim))))
    return Out(_plain(layer, x, run), state)


def _plain(layer: kinds.Layer, x: Signal, run: Pass) -> Signal:
    """Run a layer without parameters, state or costs."""
    match layer:
        case kinds.NoOp():
            return x
        case kinds.Rect():
            return jax.nn.relu(x)
        case kinds.MultiscaleRect():
            return tuple(jax.nn.relu(scale) for scale in x)
        case kinds.Softmax():
            return jax.nn.softmax(x)
        case kinds.Select(i):
            return x[i]
        case kinds.MaxPool(stride, supp):
            return pooling.max_pool(x, supp, stride=stride, padding="SAME")
        case kinds.GlobalMaxPool():
            return pooling.global_max_pool(x)
        case kinds.ToPyramid():
            return multiscale.pyramid(layer, x)
        case kinds.MultiscaleLLN():
            return tuple(multiscale.normalise_luminance(layer, scale) for scale in x)
        case kinds.Dropout(keep):
            if keep == 1:
                return x
            return dropout(x, 1 - keep, train=run.train, key=run.key)
    raise UsageError("layer", layer, f"one of {', '.join(kinds.LAYERS)}")


def shapes(layer: kinds.Layer, params: dict, state: dict, x: Signal) -> Signal:
    """Return the kind of signal that a layer gives for one like x."""
    run = lambda params, state, x: apply(layer, params, state, x, Pass()).x
    return jax.eval_shape(run, params, state, x)


def count_ops(layer: kinds.Layer, params: dict, state: dict, x: Signal) -> int:
    """Return the operations that a layer spends on one image.

    Args:
        layer: which one.
        params, state: from `init`; their shapes alone are read, as those of x.
        x: a signal of the kind that comes.
    """
    match layer:
        case kinds.LinTrans():
            return math.prod(params["w"].shape)
        case kinds.Conv():
            return math.prod((*x.shape[1:3], *params["w"].shape))
        case kinds.MultiscaleConvMax():
            return multiscale.count_conv_max(layer, params, x)
        case kinds.Chain(comps):
            total = 0
            for i, comp in enumerate(comps):
                own = params.get(f"c{i}", {}), state.get(f"c{i}", {})
                total += count_ops(comp, *own, x)
                x = shapes(comp, *own, x)
            return total
    return 0


def scales_read(layer: kinds.Layer, scales: int) -> int:
    """Return how many of the coarsest of so many scales a layer reads."""
    match layer:
        case kinds.Select(i):
            return scales - i % scales
        case kinds.MultiscaleConvMax(n_chan):
            return len(n_chan)
        case kinds.Chain(comps) if comps:
            return scales_read(comps[0], scales)
    return scales


def _joined(parts: Sequence[Variables]) -> Variables:
    """Name the params and states of components, leaving out those that have none."""
    params = {f"c{i}": part.params for i, part in enumerate(parts) if part.params}
    state = {f"c{i}": part.state for i, part in enumerate(parts) if part.state}
    return Variables(params, state)


def _init_chain(normals: Array, comps: Sequence[kinds.Layer], x: Signal) -> Variables:
    parts = []
    for comp in comps:
        parts.append(init(normals, comp, x))
        normals = normals[_kernel_size(parts[-1].params) :]
        params, state = parts[-1]
        x = shapes(comp, params, state, x)
    return _joined(parts)


def _chain(
    comps: Sequence[kinds.Layer], params: dict, state: dict, x: Signal, run: Pass
) -> Out:
    new, c_err, c_mod, correct = dict(state), 0.0, 0.0, None
    for i, comp in enumerate(comps):
        name, own = f"c{i}", run
        if run.key is not None:
            own = run._replace(key=jax.random.fold_in(run.key, i))
        out = apply(comp, params.get(name, {}), state.get(name, {}), x, own)
        x, correct = out.x, out.correct
        c_err, c_mod = c_err + out.c_err, c_mod + out.c_mod
        if name in state:
            new[name] = out.state
    return Out(x, new, c_err, c_mod, correct)


def _init_lin_trans(normals: Array, layer: kinds.LinTrans, x: Signal) -> Variables:
    inputs = math.prod(x.shape[1:])
    z = normals[: inputs * layer.n_chan].reshape(inputs, layer.n_chan)
    w = layer.sigma_w / math.sqrt(inputs) * z + _equilibrium(layer, z)
    return Variables({"w": w, "b": jnp.zeros(layer.n_chan, w.dtype)}, {})


def _init_conv(normals: Array, layer: kinds.Conv, x: Signal) -> Variables:
    inputs = x.shape[-1]
    shape = (layer.supp, layer.supp, inputs, layer.n_chan)
    z = normals[: math.prod(shape)].reshape(shape)
    w = layer.sigma_w / (layer.supp * math.sqrt(inputs)) * z + _equilibrium(layer, z)
    return Variables({"w": w, "b": jnp.zeros(layer.n_chan, w.dtype)}, {})


def _equilibrium(layer: kinds.LinTrans | kinds.Conv, w: Array) -> Array | float:
    """Return what w starts around and is drawn to: 0, or the identity."""
    if not layer.res:
        return 0.0
    identity = jnp.eye(*w.shape[-2:], dtype=w.dtype)
    if isinstance(layer, kinds.LinTrans):
        return identity
    centre = layer.supp // 2
    return jnp.zeros_like(w).at[centre, centre].set(identity)


def _away(layer: kinds.LinTrans | kinds.Conv, w: Array) -> Array:
    return w - _equilibrium(layer, w)


def _l2(weight: float | int, *kernels: Array) -> Array | float:
    """Return weight Σ w², and nothing to compute where the weight is 0."""
    if not weight:
        return 0.0
    return weight * sum((jnp.sum(w**2) for w in kernels[1:]), jnp.sum(kernels[0] ** 2))


def conv_max_penalty(layer: kinds.MultiscaleConvMax, params: dict) -> Array | float:
    """Return k_l2 Σ w² over the kernels of all scales."""
    kernels = [w for name, w in params.items() if name.startswith("w_")]
    return _l2(layer.k_l2, *kernels)


def _init_batch_norm(x: Signal) -> Variables:
    zeros, ones = jnp.zeros(x.shape[-1], x.dtype), jnp.ones(x.shape[-1], x.dtype)
    return Variables({"gamma": ones, "beta": zeros}, {"m_avg": zeros, "v_avg": ones})


def _batch_norm(
    layer: kinds.BatchNorm | kinds.MultiscaleBatchNorm,
    params: dict,
    state: dict,
    x: Array,
    run: Pass,
) -> tuple[Array, dict]:
    affine = {"scale": params["gamma"], "offset": params["beta"]}
    if not run.train:
        mean, var = state["m_avg"], state["v_avg"]
        return norm.normalize(affine, x, mean, var, epsilon=layer.eps), state
    mean, var = norm.moments(x, axis_name=run.axis_name)
    y = norm.normalize(affine, x, mean, var, epsilon=layer.eps)
    batch = jax.lax.stop_gradient({"m_avg": mean, "v_avg": var})
    d = layer.d
    return y, {name: d * state[name] + (1 - d) * batch[name] for name in state}


def _batch_norms(
    layer: kinds.MultiscaleBatchNorm, params: dict, state: dict, x: Signal, run: Pass
) -> tuple[tuple[Array, ...], dict]:
    outputs, new = list(x), dict(state)
    live = len(x) if run.live is None else run.live
    for s in range(len(x) - live, len(x)):
        name = f"c{s}"
        outputs[s], new[name] = _batch_norm(layer, params[name], state[name], x[s], run)
    return tuple(outputs), new


def _cross_entropy(x: Array, y: Array, eps: float | int) -> Array:
    return -jnp.sum(y * jnp.log(eps / x.shape[-1] + (1 - eps) * x), -1)


def _error(
    state: dict, x: Array, y: Array | None, cost: Callable[[Array, Array], Array]
) -> Out:
    if y is None:
        return Out(x, state)
    return Out(x, state, cost(x, y), 0.0, jnp.argmax(x, -1) == jnp.argmax(y, -1))
