"""Reference values of single layers."""

import json

import jax
import numpy as np
from jax import numpy as jnp

from multipath.trees import kinds, layers
from tests.parity.runner import Tolerance

INPUTS = ("meta", "y")


def _matches(keys, meta, stem):
    return any(key.endswith("/tr/out0") for key in keys)


def _tolerances(name, npz, dtype):
    part = name.split("/", 1)[1]
    if part in INPUTS or part.startswith(("x", "param/")) or "/cot" in name:
        return None
    return Tolerance(0.0) if part.endswith(("n_ops", "cor")) else Tolerance(1e-4, 2e-5)


def _run(npz, dtype):
    found = {}
    for case in sorted({name.split("/")[0] for name in npz}):
        own = {
            k.split("/", 1)[1]: v for k, v in npz.items() if k.startswith(f"{case}/")
        }
        ours = _case(own, dtype)
        found |= {
            f"{case}/{name}": (_like(ours[name], own[name]), own[name])
            for name in own
            if name in ours
        }
    return found


def _like(value, golden):
    """Stretch a missing cost, or a gradient of zeros, to the file's shape."""
    value = np.asarray(value)
    if value.shape != golden.shape and not np.any(value):
        return np.zeros(golden.shape)
    return value


def _case(npz, dtype):
    layer = _layer(json.loads(str(npz["meta"])), npz)
    params, state = {}, {}
    for name, value in npz.items():
        if name.startswith("param/"):
            keys = name.split("/")[1:]
            place = state if keys[-1] in ("m_avg", "v_avg") else params
            for key in keys[:-1]:
                place = place.setdefault(key, {})
            place[keys[-1]] = jnp.asarray(value, dtype)
    scales = sorted(k for k in npz if k[0] == "x" and k[1:].isdigit())
    x = tuple(jnp.asarray(npz[k], dtype) for k in scales)
    y = jnp.asarray(npz["y"], dtype) if "y" in npz else None
    single = json.loads(str(npz["meta"]))["n_in"] == 1
    found = {"n_ops": layers.count_ops(layer, params, state, x[0] if single else x)}
    for mode in ("tr", "ev"):
        cots = [npz[k] for k in sorted(npz) if k.startswith(f"{mode}/cot")]
        if cots:
            inputs = params, x, [jnp.asarray(c, dtype) for c in cots]
            found |= _mode(layer, *inputs, state, y, mode, single)
    return found


def _mode(layer, params, x, cots, state, y, mode, single):
    run = layers.Pass(y, mode == "tr")

    def total(params, x):
        out = layers.apply(layer, params, state, x[0] if single else x, run)
        outputs = out.x if isinstance(out.x, tuple) else (out.x,)
        value = sum(jnp.sum(o * c) for o, c in zip(outputs, cots, strict=True))
        return value + jnp.sum(jnp.asarray(out.c_err)) + jnp.sum(
            jnp.asarray(out.c_mod)
        ), (out, outputs)

    program = jax.jit(
        jax.grad(total, (0, 1), has_aux=True),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    (gp, gx), (out, outputs) = program(params, x)
    found = {f"{mode}/out{i}": value for i, value in enumerate(outputs)}
    found |= {f"{mode}/gx{i}": value for i, value in enumerate(gx)}
    found |= {f"{mode}/c_err": out.c_err, f"{mode}/c_mod": out.c_mod}
    if out.correct is not None:
        found[f"{mode}/cor"] = out.correct
    named = {"gp": gp, "new": out.state}
    for part, tree in named.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            keys = "/".join(str(key.key) for key in path)
            found[f"{mode}/{part}/{keys}"] = leaf
    return found


def _layer(settings, npz):
    """Build the layer of a file; tuples stand for lists."""
    kind, hypers = settings["type"], dict(settings["hypers"])
    if kind == "Chain":
        return _small_classifier(npz)
    hypers.pop("shape0", None)
    if kind == "MaxPool":
        # The published program hands window and step on in each other's place.
        hypers = {"stride": hypers["supp"], "supp": hypers["stride"]}
    return kinds.LAYERS[kind](**{k: _tupled(v) for k, v in hypers.items()})


def _small_classifier(npz):
    # The files leave its options out.
    linear = lambda name: kinds.LinTrans(npz[f"param/{name}/w"].shape[1], k_l2=0.01)
    return kinds.Chain(
        (
            kinds.Select(-1),
            linear("c1"),
            kinds.BatchNorm(),
            kinds.Rect(),
            linear("c4"),
            kinds.Softmax(),
            kinds.CrossEntropyError(),
        )
    )


def _tupled(value):
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


CASES = ((_matches, _run, _tolerances),)
