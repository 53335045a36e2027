"""Reference values of gaitprop: layers, updates, training steps, statistics."""

import functools
import re

import jax
import numpy as np
import optax
from jax import numpy as jnp

from gaitprop import (
    diagnostics,
    factors,
    layers,
    networks,
    regulariser,
    rules,
    transfer,
)
from gaitprop import optimizer as optimizers
from tests.gaitprop.settings import settings
from tests.parity.runner import Tolerance, meta

UNIT = float(np.finfo(np.float64).eps)
UPDATE = re.compile(
    r"(?P<rule>[a-z]+)(_g(?P<gamma>[^_]+))?_"
    r"((?P<exact>exact)|lam(?P<lam>[^_]+))_d(?P<part>[Wb])(?P<layer>\d+)"
)
ANGLE = re.compile(r"(?P<rule>[a-z]+)(_g(?P<gamma>[^_]+))?_angle_deg")
PENALTY = re.compile(
    r"(?P<kind>.+?)_(?P<identity>identity_)?(loss|grad_lam(?P<lam>.+))"
)
PART = {"W": "kernel", "b": "bias"}
TRAINING = ("gamma", "ortho_weight", "learning_rate", "beta1", "beta2", "eps")


def _by_precision(dtype, double, single) -> Tolerance:
    bound = double if dtype == np.float64 else single
    return bound if isinstance(bound, Tolerance) else Tolerance(bound)


def _compiled(evaluate):
    """Make `run` of a function `(npz, dtype) -> {name: ours}`, compiled as one program.

    One quick compilation a file: nothing here is worth optimising.
    """

    def run(npz, dtype):
        # Arrays are arguments, so that XLA computes with them and folds nothing.
        arrays = {k: v for k, v in npz.items() if v.dtype.kind in "fiu"}
        fixed = {k: v for k, v in npz.items() if k not in arrays}
        program = jax.jit(
            lambda arrays: evaluate({**fixed, **arrays}, dtype),
            compiler_options={"xla_backend_optimization_level": 0},
        )
        ours = program(arrays)
        return {name: (value, _golden(name, npz)) for name, value in ours.items()}

    return run


def _golden(name, npz):
    if match := UPDATE.fullmatch(name):
        return _reference(name, match, npz)
    if match := ANGLE.fullmatch(name):
        return _reference_angle(name, match, npz)
    return npz[name]


def _slope(info) -> float:
    return 1.0 if info.get("linear") else info.get("leaky_slope", 0.1)


def _parameters(npz, dtype, suffix=""):
    depth = sum(bool(re.fullmatch(rf"W\d+{suffix}", name)) for name in npz)
    return tuple(
        {
            "kernel": jnp.asarray(npz[f"W{i}{suffix}"], dtype),
            "bias": jnp.asarray(npz[f"b{i}{suffix}"], dtype),
        }
        for i in range(depth)
    )


def _settings(info, params, **changes):
    inputs = info.get("widths", [params[0]["kernel"].shape[0]])[0]
    widths = (inputs, *(layer["bias"].shape[0] for layer in params))
    return settings(
        widths=widths,
        classes=info["n_classes"],
        transfer="linear" if info.get("linear") else "leaky_relu",
        leaky_slope=info.get("leaky_slope", 0.1),
        **changes,
    )


# One layer: the transfer function, the forward and the inverse pass.


@_compiled
def _run_layer(npz, dtype):
    slope = _slope(meta(npz))
    layer = {
        "kernel": jnp.asarray(npz["W"], dtype),
        "bias": jnp.asarray(npz["b"], dtype),
    }
    x, y, z = (jnp.asarray(npz[name], dtype) for name in "xyz")
    # These four are of the leaky rectifier in files of linear layers too.
    leaky = meta(npz).get("leaky_slope", 0.1)
    out = transfer.forward(z, leaky)
    ours = {
        "y": layers.forward(layer, x, slope),
        "y_inverted": layers.inverse(layer, y, slope),
        "z_inverted": layers.inverse(layer, z, slope),
        "W_inv": factors.invert(layer["kernel"]),
        "act": out,
        "dact": transfer.derivative(z, leaky),
        "act_inv": transfer.inverse(z, leaky),
        "dact_from_output": transfer.derivative(out, leaky),
    }
    return ours


def _layer_tolerance(name, npz, dtype):
    if name in ("W", "b", "x", "z"):
        return None
    if name in ("y_inverted", "z_inverted", "W_inv"):
        return _by_precision(dtype, 1e-10, _single_inverse(np.linalg.cond(npz["W"])))
    return _by_precision(dtype, 1e-12, 1e-5)


def _single_inverse(condition: float) -> float:
    """1e-3 up to a condition number of 100, in proportion beyond."""
    return 1e-3 * max(1.0, float(condition) / 100)


# A whole network: activities, targets, updates of every rule, angles.


@_compiled
def _run_network(npz, dtype):
    info, params = meta(npz), _parameters(npz, dtype)
    config, _ = _settings(info, params)
    x, labels = jnp.asarray(npz["x"], dtype), jnp.asarray(npz["labels"])
    h = networks.forward(params, x, config)
    # The inverse pass starts from the golden activities: it is compared by itself.
    golden_h = tuple(jnp.asarray(npz[f"h{i}"], dtype) for i in range(len(h)))
    golden_target = jnp.asarray(npz["target"], dtype)
    targets = networks.inverse(params, golden_target, golden_h, config)
    return {
        "onehot": networks.onehot(labels, info["n_classes"]),
        "target": networks.output_target(h[-1], labels, config),
        "cond_W": diagnostics.orthogonality(params)["condition"],
        **{f"h{i}": value for i, value in enumerate(h)},
        **{f"tp_target{i}": value for i, value in enumerate(targets)},
        **_updates(npz, params, x, labels),
    }


def _updates(npz, params, x, labels):
    """Return every update and angle that the file names."""
    info = meta(npz)

    @functools.cache
    def plain(rule, gamma):
        chosen = {} if gamma is None else {"gamma": gamma}
        config, hyper = _settings(info, params, algorithm=rule, **chosen)
        state = rules.init_rule_state(jax.random.key(0), params, config, hyper)
        return rules.gradients(params, state, x, labels, hyper, config)[0]

    @functools.cache
    def ascent(rule, gamma, lam):
        grads = plain(rule, gamma)
        if lam:
            config, hyper = _settings(info, params, ortho_weight=lam)
            weight = hyper["ortho_weight"]
            grads = rules.add_regulariser(grads, params, weight, config)
        return jax.tree.map(jnp.negative, grads)

    ours = {}
    for name in npz:
        if match := UPDATE.fullmatch(name):
            lam = _number(match["lam"]) or 0.0
            layers_ = ascent(match["rule"], _number(match["gamma"]), lam)
            ours[name] = layers_[int(match["layer"])][PART[match["part"]]]
        elif match := ANGLE.fullmatch(name):
            ascents = ascent(match["rule"], _number(match["gamma"]), 0.0)
            ours[name] = diagnostics.angles(ascents, ascent("bp", None, 0.0))
    return ours


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _reference(name, match, npz):
    """Return the exact value where the file holds one, else the recorded value.

    The recorded GAIT updates carry the rounding errors of subtracting and scaling up
    again. The regulariser's part is exact in any rule, so it is taken from BP's.
    """
    gamma = f"_g{match['gamma']}" if match["gamma"] is not None else ""
    leaf = f"d{match['part']}{match['layer']}"
    exact = f"{match['rule']}{gamma}_exact_{leaf}"
    plain, regularised = f"bp_lam0_{leaf}", f"bp_lam{match['lam']}_{leaf}"
    if match["exact"] or exact not in npz:
        return npz[name]
    if regularised not in npz or plain not in npz:
        return npz[name]
    return npz[exact] + (npz[regularised] - npz[plain])


def _kernels(prefix, npz):
    names = (f"{prefix}_dW{i}" for i in range(len(npz["cond_W"])))
    return [npz[name] for name in names if name in npz]


def _angle_drift(match, npz) -> float:
    """Return the size of rounding errors in a recorded angle, in degrees."""
    gamma = _number(match["gamma"])
    drift = 1.0 if gamma is None else gamma ** -(len(npz["cond_W"]) - 1.0)
    return float(np.degrees(300 * UNIT * drift))


def _reference_angle(name, match, npz):
    """Return the angles of the exact updates where the recorded ones are noise."""
    own = _kernels(name.replace("angle_deg", "exact"), npz)
    # Recorded updates of BP are exact to rounding.
    bp = _kernels("bp_lam0", npz)
    whole = len(own) == len(bp) == len(npz[name])
    if _angle_drift(match, npz) < 1e-4 or not whole:
        return npz[name]
    return np.array([_angle(u, v) for u, v in zip(own, bp, strict=True)])


def _angle(u, v) -> float:
    sizes = np.linalg.norm(u) * np.linalg.norm(v)
    return float(np.degrees(np.arccos(np.clip(np.vdot(u, v) / sizes, -1, 1))))


def _network_tolerance(name, npz, dtype):
    if name in ("x", "labels") or re.fullmatch(r"[Wb]\d+", name):
        return None
    if match := UPDATE.fullmatch(name):
        return _update_tolerance(name, match, npz, dtype)
    if match := ANGLE.fullmatch(name):
        recorded = _reference_angle(name, match, npz) is npz[name]
        degrees = min(0.5, max(1e-4, _angle_drift(match, npz))) if recorded else 1e-4
        single = max(degrees, 0.05)
        return Tolerance(0.0, degrees if dtype == np.float64 else single)
    if name == "cond_W" or name.startswith("tp_target"):
        condition = float(np.max(npz["cond_W"]))
        return _by_precision(dtype, 1e-10, _single_inverse(condition))
    return _by_precision(dtype, 1e-12, 1e-5)


def _update_tolerance(name, match, npz, dtype):
    lam = _number(match["lam"]) or 0.0
    recorded = _reference(name, match, npz) is npz[name] and not match["exact"]
    relative = 1e-11
    if recorded and match["gamma"] is not None:
        depth = len(npz["cond_W"])
        drift = float(match["gamma"]) ** -(depth - 1.0 - int(match["layer"]))
        relative = max(relative, 300 * UNIT * drift)
    # A regulariser whose gradient vanishes leaves rounding errors in proportion to it.
    double = Tolerance(relative, 1e-12 * lam)
    return _by_precision(dtype, double, Tolerance(max(relative, 1e-5), 1e-5 * lam))


# The regulariser.


@_compiled
def _run_penalty(npz, dtype):
    ours = {}
    for name in npz:
        if not (match := PENALTY.fullmatch(name)):
            continue
        kernel = jnp.asarray(npz[f"{match['kind']}_W"], dtype)
        target = "identity" if match["identity"] else "offdiag"
        if match["lam"] is None:
            ours[name] = regulariser.penalty(kernel, target)
        else:
            gradient = regulariser.gradient(kernel, target)
            ours[name] = float(match["lam"]) * gradient
    return ours


def _penalty_tolerance(name, npz, dtype):
    if name.endswith("_W") and name.removesuffix("W") + "loss" in npz:
        return None
    match = PENALTY.fullmatch(name)
    if match is None:
        return Tolerance(0.0)
    lam = _number(match["lam"]) or 1.0
    return _by_precision(
        dtype, Tolerance(1e-11, 1e-12 * lam), Tolerance(1e-4, 1e-5 * lam)
    )


# Training steps.


@_compiled
def _run_training(npz, dtype):
    info, params = meta(npz), _parameters(npz, dtype, "_init")
    config, hyper = _settings(
        info,
        params,
        algorithm=info["algo"],
        optimizer="adam" if info["bias_correction"] else "adam_nodebias",
        **{name: info[name] for name in TRAINING},
    )
    optimizer = optimizers.make_optimizer(config.optimizer)(hyper)
    update = rules.make_update(config)
    key, count, size = jax.random.key(0), info["steps"], info["batch"]
    state = rules.init_rule_state(key, params, config, hyper)

    def step(carry, batch):
        params, state, opt_state = carry
        grads, (state, metrics) = update(params, state, batch, key, hyper)
        steps, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, steps)
        return (params, state, opt_state), (params, metrics)

    x = jnp.asarray(npz["x"], dtype).reshape(count, size, -1)
    batches = x, jnp.asarray(npz["labels"]).reshape(count, size)
    carry = (params, state, optimizer.init(params))
    (_, _, opt_state), (history, metrics) = jax.lax.scan(step, carry, batches)
    first, second = _moments(opt_state)
    values = {
        "batch_accuracy_before_step": metrics["accuracy"],
        "batch_sum_sq_error_before_step": metrics["mse"],
        # Golden moments are of the ascent direction.
        **_named(jax.tree.map(jnp.negative, first), "m_{}{}"),
        **_named(second, "v_{}{}"),
    }
    for t in range(count):
        after = jax.tree.map(lambda leaf, t=t: leaf[t], history)
        values |= _named(after, f"{{}}{{}}_step{t + 1}")
    return {name: value for name, value in values.items() if name in npz}


def _moments(opt_state):
    states = opt_state if hasattr(opt_state, "mu") else opt_state[0]
    return states.mu, states.nu


def _named(params, pattern):
    return {
        pattern.format(letter, i): layer[part]
        for i, layer in enumerate(params)
        for letter, part in PART.items()
    }


def _training_tolerance(name, npz, dtype):
    if name in ("x", "labels") or re.fullmatch(r"[Wb]\d+_init", name):
        return None
    info = meta(npz)
    double = 1e-12 if info["algo"] in ("bp", "tp") else 1e-9
    if re.fullmatch(r"[Wb]\d+_step\d+", name):
        absolute = double if dtype == np.float64 else 2e-6
        return Tolerance(0.0, absolute)
    if re.match(r"[mv]_", name):
        # The recorded moments of GAIT carry the rounding errors of its updates.
        drift = info["gamma"] ** -(len(info["widths"]) - 2.0)
        recorded = 300 * UNIT * drift if info["algo"] == "gait" else 1e-11
        return _by_precision(dtype, max(recorded, 1e-11), 1e-4)
    if name == "batch_accuracy_before_step":
        return Tolerance(0.0, 1e-12 if dtype == np.float64 else 1e-6)
    return _by_precision(dtype, max(double, 1e-11), 1e-5)


# Statistics of a network's outputs.


@_compiled
def _run_metrics(npz, dtype):
    info, params = meta(npz), _parameters(npz, dtype)
    config, _ = _settings(info, params)
    labels, classes = jnp.asarray(npz["labels"]), info["n_classes"]
    images = npz["images"].reshape(len(npz["images"]), -1)
    x = jnp.asarray(images, dtype) / npz["scale"].astype(dtype)
    output = networks.forward(params, x, config)[-1]
    ours = diagnostics.metrics(output, labels, classes)
    losses = diagnostics.upstream_losses(output, labels, classes)
    return {
        "x_scaled": x,
        "onehot": networks.onehot(labels, classes),
        "output": networks.predict(params, x, config),
        "accuracy": ours["accuracy"],
        "mse_sum_over_classes": ours["mse"],
        "mse_mean_all": ours["mse"] / classes,
        "upstream_loss_cpu": losses["loss_upstream_cpu"],
        "upstream_loss_gpu": losses["loss_upstream_gpu"],
    }


def _metrics_tolerance(name, npz, dtype):
    del npz
    if name in ("images", "labels", "scale") or re.fullmatch(r"[Wb]\d+", name):
        return None
    return _by_precision(dtype, 1e-12, 1e-5)


def _has(*names):
    return lambda keys, info, stem: keys.issuperset(names)


CASES = (
    (_has("W", "act", "y_inverted"), _run_layer, _layer_tolerance),
    (_has("images", "accuracy"), _run_metrics, _metrics_tolerance),
    (_has("W0_init", "x", "labels"), _run_training, _training_tolerance),
    (_has("x", "target", "bp_lam0_dW0"), _run_network, _network_tolerance),
    (
        lambda keys, info, stem: any(k.endswith("_loss") for k in keys),
        _run_penalty,
        _penalty_tolerance,
    ),
)
