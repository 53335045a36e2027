"""Reference values of architectures, controllers, losses, optimisers and accounts."""

import itertools
import re

import jax
import numpy as np
import optax
from jax import numpy as jnp

from enasq import accounting, cell, controller, losses, optimizer, reinforce
from enasq.plan import Network
from enasq.policy import preset
from enasq.records import records
from shared.config import split
from shared.errors import UsageError
from tests.parity.runner import Tolerance
from tests.quick import quick

EXACT = Tolerance(0.0)


def _names(keys) -> set[str]:
    return {key.split("/")[0] for key in keys}


def _has(*names):
    return lambda keys, info, stem: keys.issuperset(names)


def _ends(*ends):
    """Match files that hold arrays of these names, whatever stands before a slash."""

    def matches(keys, info, stem):
        return all(any(key.endswith("/" + end) for key in keys) for end in ends)

    return matches


# Architectures.


def _run_arcs(npz, dtype):
    found = {}
    for name in _names(npz):
        arc = cell.parse(" ".join(map(str, npz[f"{name}/arc"].tolist())))
        found[f"{name}/B"] = arc.shape[1]
        for part, code in zip(("normal", "reduce"), arc, strict=True):
            # Both forms: on the host, and compiled from an array that is data.
            used = cell.use_counts(code)
            loose = np.nonzero(quick(cell.loose_ends)(jnp.asarray(code)))[0]
            reach = np.nonzero(cell.reaching(code))[0]
            decoded = {"edges": cell.edges(code), "used": used, "loose": loose}
            for key, value in (decoded | {"reach": reach}).items():
                found[f"{name}/{part}/{key}"] = value
    return {name: (value, npz[name]) for name, value in found.items()}


def _arc_tolerance(name, npz, dtype):
    return None if name.endswith("/arc") else EXACT


# Losses.

LOSSES = {
    "upstream": "published_hinge",
    "hinge": "hinge",
    "sq_hinge": "squared_hinge",
    "xent": "softmax",
}


def _run_losses(npz, dtype):
    logits, labels = jnp.asarray(npz["logits"], dtype), jnp.asarray(npz["labels"])
    found = {}
    for name, ours in LOSSES.items():
        value = lambda logits, ours=ours: losses.loss(ours, logits, labels)
        loss, grad = jax.value_and_grad(value)(logits)
        found |= {f"{name}_loss": loss, f"{name}_grad": grad}
    return {name: (found[name], npz[name]) for name in found if name in npz}


def _loss_tolerance(name, npz, dtype):
    return None if name in ("logits", "labels") else Tolerance(1e-6)


# Optimisers, by the names of their cases.

OPTIMIZERS = {
    "momentum_exp": ("momentum", "none", {"l2": 1e-3}),
    "adam_exp": ("adam", "none", {}),
    "sgd_global_clip": ("sgd", "global", {"clip_bound": 1.5}),
    "adam_norm_clip_noop": ("adam", "published_norm", {"clip_bound": 0.1}),
    "adam_cosine": ("adam", "none", {}),
    "momentum_cosine": ("momentum", "none", {"l2": 1e-2}),
    "momentum_global": ("momentum", "global", {"clip_bound": 3.0}),
}


def _exponential(lr, start=0, every=10**6, rate=1.0):
    hyper = {"lr": lr, "start": start, "every": every, "rate": rate}
    return lambda step: optimizer.exponential(step, hyper)


def _cosine(high, low, period, multiplier, steps_per_epoch):
    names = ("lr_max", "lr_min", "period", "multiplier", "steps_per_epoch")
    values = high, low, period, multiplier, steps_per_epoch
    hyper = dict(zip(names, values, strict=True))
    return lambda step: optimizer.cosine(step, hyper, compat=True)


RATES = {
    "momentum_exp": _exponential(0.05, 2, 3, 0.5),
    "adam_exp": _exponential(0.0035),
    "sgd_global_clip": _exponential(0.1),
    "adam_norm_clip_noop": _exponential(0.01),
    "adam_cosine": _cosine(0.05, 0.0005, 2, 2, 3),
    "momentum_cosine": _cosine(0.1, 0.001, 1, 2, 4),
    "momentum_global": _exponential(0.02, 1, 2, 0.7),
}


def _run_optimizers(npz, dtype):
    found = {}
    for name in _names(npz) & set(OPTIMIZERS):
        steps = _descend(name, npz, dtype)
        found |= {f"{name}/{part}": value for part, value in steps.items()}
    return {name: (value, npz[name]) for name, value in found.items()}


def _descend(name, npz, dtype):
    """Return what a linear model's steps give, with the mean squared error times 10."""
    kind, clip, hyper = OPTIMIZERS[name]
    make = optimizer.make_optimizer(kind, clip=clip)
    x, t, w, b = (
        jnp.asarray(npz[f"{name}/{part}"], dtype) for part in ("x", "t", "w0", "b0")
    )

    def loss(params, x, t):
        return 10 * jnp.mean((x @ params["w"] + params["b"][None] - t) ** 2)

    def step(carry, batch):
        (params, state), (count, x, t) = carry, batch
        rate = RATES[name](count)
        rule = make({**hyper, "learning_rate": rate})
        value, grads = jax.value_and_grad(loss)(params, x, t)
        norm = optimizer.gradient_norm(grads, params, hyper.get("l2", 0.0))
        updates, state = rule.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), {
            "lr": rate,
            "grad_norm": norm,
            "loss": value,
            **params,
        }

    params = {"w": w, "b": b}
    carry = params, make({**hyper, "learning_rate": 0.1}).init(params)
    return jax.lax.scan(step, carry, (jnp.arange(len(x)), x, t))[1]


def _optimizer_tolerance(name, npz, dtype):
    part = name.split("/")[1]
    if part in ("w0", "b0", "x", "t"):
        return None
    # The rate in single precision is good to its own rounding.
    return Tolerance(1e-7) if part == "lr" else Tolerance(1e-5)


# Controllers.

PARAMETERS = {
    "g_emb": "start",
    "emb/w": "op_embedding",
    "softmax/w": "op_kernel",
    "softmax/b": "op_bias",
    "attention/w_1": "attention_key",
    "attention/w_2": "attention_query",
    "attention/v": "attention_score",
}
META = (
    "blocks",
    "hidden",
    "layers",
    "ops",
    "tanh_constant",
    "op_tanh_reduce",
    "temperature",
    "entropy_weight",
    "baseline_decay",
    "learning_rate",
    "l2",
)
WHOLE = {"blocks", "hidden", "layers", "ops"}


def _settings(npz):
    given = dict(zip(META, npz["meta"].tolist(), strict=True))
    # -1 stands for an option that is off.
    return controller.published(
        **{k: int(v) if k in WHOLE else max(v, 0.0) for k, v in given.items()}
    )


def _imported(npz, params):
    """Return parameters of a file, in the shapes and precision of others."""
    layers = len(params["lstm"])
    kernels = [npz[f"param/lstm/layer_{i}/w"] for i in range(layers)]
    given = {ours: npz[f"param/{name}"] for name, ours in PARAMETERS.items()}
    given["lstm"] = np.stack(kernels)
    return {
        name: jnp.asarray(given[name], like.dtype).reshape(like.shape)
        for name, like in params.items()
    }


def _exported(params):
    named = {name: params[ours] for name, ours in PARAMETERS.items()}
    kernels = {f"lstm/layer_{i}/w": kernel for i, kernel in enumerate(params["lstm"])}
    return named | kernels


def _run_controller(npz, dtype):
    settings, hyper = split(_settings(npz))
    state = reinforce.init(jax.random.key(0), settings, hyper)
    baseline = jnp.asarray(npz["baseline_before"], dtype)
    state = state._replace(params=_imported(npz, state.params), baseline=baseline)
    found = {}

    @quick
    def one(state, arc, accuracy):
        scored = controller.score(state.params, arc, settings, hyper)
        reward = accuracy[None]
        grads, metrics = reinforce.gradient(state, arc[None], reward, settings, hyper)
        after = reinforce.descend(state, grads, metrics, hyper, samples=1)
        return scored, after, metrics, grads

    for step in itertools.count():
        prefix = f"step{step}/"
        if f"{prefix}arc_normal" not in npz:
            break
        halves = npz[f"{prefix}arc_normal"], npz[f"{prefix}arc_reduce"]
        arc = cell.check(np.concatenate(halves), ops=settings.op_count)
        accuracy = jnp.asarray(npz[f"{prefix}valid_acc"], dtype)
        scored, state, metrics, grads = one(state, jnp.asarray(arc), accuracy)
        logits = np.asarray(scored.logits).reshape(-1, scored.logits.shape[-1])
        values = {
            "entropy": scored.entropy,
            "neg_log_prob": -scored.log_prob,
            "reward": metrics["reward"],
            "loss": metrics["loss"],
            "baseline_after": metrics["baseline"],
            "lr": hyper["learning_rate"],
            "grad_norm": metrics["grad_norm"],
            "logits": _zeroed(logits, npz[f"{prefix}logits"]),
            **{f"grad/{k}": v for k, v in _exported(grads).items()},
            **{f"param_after/{k}": v for k, v in _exported(state.params).items()},
        }
        for name, value in values.items():
            golden = npz[prefix + name]
            value = np.reshape(value, golden.shape)
            # Zero is what both sides have for what cannot be chosen.
            found[prefix + name] = value, np.nan_to_num(golden)
    return found


def _zeroed(logits, golden):
    """Return logits with 0 for what cannot be chosen, if both agree on what that is."""
    width = golden.shape[1]
    masked = np.isinf(logits)
    same = np.array_equal(masked[:, :width], np.isnan(golden))
    if not same or not masked[:, width:].all():
        return np.full(golden.shape, np.inf)
    return np.where(masked, 0, logits)[:, :width]


def _controller_tolerance(name, npz, dtype):
    if re.match(r"param/|baseline_before|step\d+/(arc_|valid_acc)", name):
        return None
    if "/param_after/" in name:
        return Tolerance(1e-6)
    step = name.split("/")[0]
    grads = [npz[key] for key in npz if key.startswith(f"{step}/grad/")]
    # Where all terms of a gradient cancel, only their rounding errors are left.
    rounding = 1e-7 * max(float(np.abs(grad).max()) for grad in grads)
    return Tolerance(1e-5, rounding if "/grad/" in name else 0.0)


# Accounts.

TYPES = {"kbit": 0, "ternary": 1, "float": 2}
KINDS = {"conv": 0, "dense": 0, "depthwise": 1, "pointwise": 2}
CIFAR = """1 2 1 3 0 1 0 4 1 1 1 1 0 1 0 1 1 0 0 1
           0 1 0 4 1 0 2 0 0 3 1 1 0 0 0 0 4 1 1 0"""
MNIST = """1 2 0 0 1 1 0 1 1 1 0 0 1 1 1 3 0 1 1 0
           1 4 1 1 2 0 1 3 1 3 1 2 1 0 1 0 3 1 1 0"""
ENAS = """0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1
          1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"""
# Layers, blocks and architecture.
DEFAULTS = {
    "train_cifar": (15, 5, CIFAR),
    "train_mnist": (6, 5, MNIST),
    "search_cifar": (3, 3, None),
    "search_mnist": (2, 3, None),
}


def _row(record):
    heads = TYPES[record.quantizer], KINDS[record.kind], record.kernel
    sizes = record.inputs, record.outputs, record.size
    bits = record.weight_bits, record.activation_bits
    return [*heads, *sizes, record.parameters, record.macs, *bits]


def _networks(name):
    """Yield settings that a table may be of, the likeliest first."""
    if name in DEFAULTS:
        yield DEFAULTS[name]
    for layers in range(31):
        for text in (CIFAR, MNIST, ENAS):
            yield layers, 5, text
        for blocks in range(1, 8):
            yield layers, blocks, None


def _account(name, table):
    """Return the records of the network whose table this is."""
    *_, channels, stem, size = table[0, :6].tolist()
    found = []
    for layers, blocks, text in _networks(name):
        kind = "search" if text is None else "fixed"
        shape = {"size": size, "channels": channels, "classes": int(table[-1, 4])}
        try:
            network = Network(kind, layers, stem // 3, blocks, **shape)
        except UsageError:
            continue
        arc = None if text is None else cell.parse(text)
        found = records(network, preset("published"), arc)
        rows = np.array([_row(record) for record in found])
        if np.array_equal(rows, table):
            break
    return found


def _run_accounts(npz, dtype):
    found = {}
    for name in _names(npz):
        own = _account(name, npz[f"{name}/table"])
        found |= {f"{name}/{key}": value for key, value in _sums(own).items()}
    return {name: (value, npz[name]) for name, value in found.items()}


def _sums(found):
    sums, (stem, *rest) = accounting.totals(found), found
    kinds = {"q": "kbit", "t": "ternary", "fp": "float"}
    by_type = {
        f"{part}_{short}": sum(
            getattr(record, field) for record in of if record.quantizer == long
        )
        for part, field, of in (("params", "parameters", found), ("macs", "macs", rest))
        for short, long in kinds.items()
    }
    return {
        **by_type,
        "macs_stem": stem.macs,
        "bn_channels": sums.norm_channels,
        "num_vars": sums.parameters,
        "bits_weights": sums.model_bits,
        "bits_fp32": sums.float_bits,
        "bops": sums.bit_operations,
        "macs_float_input": sums.float_input_macs,
        "macs_xnor": sums.low_bit_macs,
        "macs_dw": sums.depthwise_macs,
        "macs_pw": sums.pointwise_macs,
        "table": np.array([_row(record) for record in found]),
    }


CASES = (
    (_ends("normal/edges", "reduce/used"), _run_arcs, _arc_tolerance),
    (_has("logits", "labels", "sq_hinge_loss"), _run_losses, _loss_tolerance),
    (_has("param/g_emb", "step0/logits"), _run_controller, _controller_tolerance),
    (_ends("w0", "grad_norm"), _run_optimizers, _optimizer_tolerance),
    (_ends("table", "bops"), _run_accounts, lambda name, npz, dtype: EXACT),
)
