"""Reference values of the arithmetic tasks: data, encodings, losses, gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from modmask.config import Config
from modmask.models import lstm as recurrent
from modmask.tasks import addmul, arithmetic, pairs
from shared import masking
from shared.layers.linear import linear
from shared.model import Model, Variables
from tests.parity.modmask.convert import from_tree, to_tree
from tests.parity.runner import Tolerance

EXACT = Tolerance(0.0, 0.0)


def _program(evaluate, *trees):
    """Run a function, compiled as one program; nothing here is worth optimising."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(evaluate, compiler_options=options)(*trees)


# Passes of masked networks, as a step of mask training makes them.


def _setup(npz, make_task, dtype, **chosen):
    """Return a task for the network that a file holds, its weights and its logits."""
    sizes, layers = _hidden(npz), _count(npz, r"param/lstm_cells_(\d+)_.*")
    hidden = npz["param/lstm_cells_0_weight_hh"].shape[1] if layers else 1
    config = Config(
        digits=npz["in/input_digits"].shape[-1],
        layer_sizes=sizes,
        state_size=hidden,
        layers=max(layers, 1),
        **chosen,
    )
    task = make_task(config)
    shapes = jax.eval_shape(task.model.init, jax.random.key(0)).params
    params = to_tree(npz, "param/", shapes, dtype=dtype)
    return task, params, to_tree(npz, "logit/", shapes, dtype=dtype)


def _count(npz, pattern):
    return len({m[1] for name in npz if (m := re.fullmatch(pattern, name))})


def _hidden(npz):
    layers = _count(npz, r"param/layers_(\d+)_weight")
    return tuple(npz[f"param/layers_{i}_bias"].shape[0] for i in range(layers - 1))


def _masks(npz, logits, prefix):
    """Return the masks of one pass; without samples, those of an evaluation."""
    samples = int(npz["n_samples"])
    if samples == 0:
        return masking.threshold(logits, inclusive=True)
    leaf = jax.tree.leaves(logits)[0]
    uniform = to_tree(npz, prefix, logits, dtype=leaf.dtype)
    return masking.sample(logits, samples if samples > 1 else None, uniform=uniform)


def _passes(npz, model, params, logits, prefixes):
    """Return a forward function whose calls take one set of masks each."""
    masks = iter([_masks(npz, logits, prefix) for prefix in prefixes])
    return lambda x: _apply(model, params, next(masks), x, int(npz["n_samples"]))


def _apply(model, params, masks, x, samples):
    if samples < 2:
        return model.apply(Variables(masking.apply_masks(params, masks)), x)[0]
    return masking.batched_apply(model, Variables(params), masks, x)[0]


def _differentiate(task, params, logits, batch, setting, forward, read):
    """Return loss, what the network put out, what it was shown, and both gradients."""

    def loss(params, logits):
        shown, run = [], forward(params, logits)

        def recording(x):
            shown.append(x)
            return run(x)

        value, _ = task.loss(recording, batch, jax.random.key(0), setting)
        return value, (read(forward(params, logits)), shown[0])

    run = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (value, (found, shown)), (of_params, of_logits) = _program(run, params, logits)
    grads = from_tree(of_params, "grad_param/") | from_tree(of_logits, "grad_logit/")
    return value, found, shown, grads


def _compared(npz, ours):
    return {name: (ours[name], npz[name]) for name in ours if name in npz}


def _flat_forward(npz, params, masks):
    """Run a stack by groups of rows, its read-out by groups of (time, row).

    The published program cuts the flattened axis of a time-major output.
    """
    cells = Model(
        lambda key: Variables(()),
        lambda v, x, **_: (recurrent.stack(v.params, x)[0], ()),
    )
    readout = Model(
        lambda key: Variables(()), lambda v, x, **_: (linear(v.params, x), ())
    )
    samples, head = int(npz["n_samples"]), "output_projection"

    def forward(x):
        h = _apply(cells, params["lstm"], masks["lstm"], x, samples)
        rows = jnp.swapaxes(h, 0, 1)
        flat = rows.reshape(-1, rows.shape[-1])
        y = _apply(readout, params[head], masks[head], flat, samples)
        return jnp.swapaxes(y.reshape(*rows.shape[:2], -1), 0, 1)

    return forward


def _both_groupings(npz, task, params, logits, batch, setting, read):
    """Return what a recurrent file holds for its two groupings of the read-out."""
    ours = {}
    forwards = {
        "batch": lambda p, m: _passes(npz, task.model, p, m, ["uniform/"]),
        "flat": lambda p, m: _flat_forward(npz, p, _masks(npz, m, "uniform/")),
    }
    for name, forward in forwards.items():
        value, found, shown, grads = _differentiate(
            task, params, logits, batch, setting, forward, read
        )
        ours[f"out_{name}/loss"] = value
        ours[f"out_{name}/logits"] = found
        ours[f"out_{name}/reference_order"] = found.reshape(*found.shape[:2], -1)
        ours["out/encoded_input"] = jnp.swapaxes(shown, 0, 1)
        ours |= {f"{name}/{key}": grad for key, grad in grads.items()}
    return ours


def _pair_digits(npz):
    digits = npz["in/input_digits"].shape[-1]
    sums = arithmetic.calculate(npz["in/numbers"], "add", digits)
    return {
        "in/sums": sums,
        "in/input_digits": arithmetic.digits_of(npz["in/numbers"], digits),
        "in/output_digits": arithmetic.digits_of(sums, digits),
    }


def _run_tuple(npz, dtype):
    mode = str(npz["mode"]) if "mode" in npz else None
    chosen = {"tuple_mode": mode} if mode else {}
    name = "tuple" if mode else "tuple_ff"
    task, params, logits = _setup(npz, pairs.make_task, dtype, task=name, **chosen)
    batch = {key: jnp.asarray(npz[f"in/{key}_digits"]) for key in ("input", "output")}
    restrict = jnp.asarray(npz["restrict"], jnp.int32)
    ours = _pair_digits(npz)
    if mode:
        read = lambda forward: pairs.recurrent_logits(
            forward, batch["input"], restrict, mode=mode
        )
        ours |= _both_groupings(npz, task, params, logits, batch, restrict, read)
        return _compared(npz, ours)
    calls = [f"uniform/{i}/" for i in range(batch["input"].shape[1])]
    value, found, _, grads = _differentiate(
        task,
        params,
        logits,
        batch,
        restrict,
        lambda p, m: _passes(npz, task.model, p, m, calls),
        lambda forward: pairs.feedforward_logits(forward, batch["input"]),
    )
    outputs = {
        "out/loss": value,
        "out/logits": found,
        "out/prediction": jnp.argmax(found, axis=-1),
    }
    return _compared(npz, ours | outputs | grads)


def _run_addmul(npz, dtype):
    several = any(name.startswith("param/lstm") for name in npz)
    name = "addmul" if several else "addmul_ff"
    task, params, logits = _setup(npz, addmul.make_task, dtype, task=name)
    digits = npz["in/input_digits"].shape[-1]
    results = [
        arithmetic.calculate(npz["in/args"], operation, digits)
        for operation in arithmetic.OPERATIONS
    ]
    results = np.stack(results, axis=1)
    batch = {
        "input": jnp.asarray(npz["in/input_digits"]),
        "operation": jnp.asarray(npz["in/op"]),
        "results": jnp.asarray(arithmetic.digits_of(results, digits)),
    }
    ours = {
        "in/all_results": results,
        "in/input_digits": arithmetic.digits_of(npz["in/args"], digits),
        "in/all_res_digits": batch["results"],
        "in/output_digits": addmul.target(batch),
    }
    read = lambda forward: addmul.logits(forward, batch, recurrent=several)
    if several:
        ours |= _both_groupings(npz, task, params, logits, batch, (), read)
        return _compared(npz, ours)
    forward = lambda p, m: _passes(npz, task.model, p, m, ["uniform/"])
    value, found, shown, grads = _differentiate(
        task, params, logits, batch, (), forward, read
    )
    ours |= {"out/loss": value, "out/logits": found, "out/encoded_input": shown}
    return _compared(npz, ours | grads)


def _network_tolerance(name, npz, dtype):
    if re.match(r"(param|logit|uniform)/|n_samples$|mode$|restrict$", name):
        return None
    if name in ("in/numbers", "in/args", "in/op"):
        return None
    if npz[name].dtype.kind in "iub":
        return EXACT
    if dtype == np.float64:
        return Tolerance(1e-9, 1e-11)
    return Tolerance(1e-3 if "grad_" in name else 2e-4, 1e-5)


# Data.


def _run_datasets(npz, dtype):
    del dtype
    digits, ours = int(npz["n_digits"]), {}
    sets = {m[1] for name in npz if (m := re.match(r"addmul/(\w+)/", name))}
    sets |= {m[1] for name in npz if (m := re.match(r"tuple/(\w+)/", name))}
    for name in sets:
        ours |= _addmul_set(npz, name, digits) | _tuple_set(npz, name, digits)
    add_mul = addmul.make_task(Config(task="addmul_ff", digits=digits))
    kernels = jax.eval_shape(add_mul.model.init, jax.random.key(0)).params["layers"]
    ends = kernels[0]["kernel"].shape[0], kernels[-1]["kernel"].shape[1]
    ours["in_out_channels_addmul"] = np.array(ends)
    # Of pairs the published data set counts digits.
    item = pairs.arrays("valid", Config(digits=digits), items=1)
    counts = [item[key][0].size for key in ("input", "output")]
    ours["in_out_channels_tuple"] = np.array(counts)
    return _compared(npz, ours)


def _addmul_set(npz, name, digits):
    start = f"addmul/{name}/"
    if start + "index" not in npz:
        return {}
    drawn = arithmetic.operations(name, digits)
    item = addmul.arrays(name, Config(digits=digits))
    index = npz[start + "index"]
    chosen = {key: jnp.asarray(array[index]) for key, array in item.items()}
    counts = np.bincount(drawn.operation, minlength=2)
    weighted = (drawn.operands @ np.array([1, 101])).sum()
    ours = {
        "n": len(drawn.operation),
        "index": _ends(len(drawn.operation), len(index)),
        "args": drawn.operands[index],
        "op": item["operation"][index],
        "input": item["input"][index],
        "output": addmul.target(chosen),
        "all_res": item["results"][index],
        "n_add_n_mul": counts,
        "checksum_args_op": np.array([weighted, drawn.operation.sum()]),
    }
    return {start + key: value for key, value in ours.items()}


def _tuple_set(npz, name, digits):
    start = f"tuple/{name}/"
    if start + "numbers" not in npz:
        return {}
    operands = arithmetic.pairs(name, digits)
    item = pairs.arrays(name, Config(digits=digits))
    index = _ends(len(operands), len(npz[start + "numbers"]))
    weights = np.array([1, 7])[:, None] * np.array([1, 101])
    ours = {
        "numbers": operands[index],
        "sums": arithmetic.calculate(operands, "add", digits)[index],
        "input": item["input"][index],
        "output": item["output"][index],
        "checksum": (operands * weights).sum(),
    }
    return {start + key: value for key, value in ours.items()}


def _ends(count, chosen, last=8):
    """Return the rows that the files show: the first ones and the last eight."""
    first = np.arange(chosen - last)
    return np.concatenate([first, np.arange(count - last, count)])


def _run_ranges(npz, dtype):
    del dtype
    digits, count, items = 2, 3, 50
    operands = arithmetic.pairs(
        "test", digits, items=items, count=count, ranges={1: (10, 40)}
    )
    results = arithmetic.calculate(operands, "mul", digits)
    ours = {
        "numbers": operands,
        "results": results,
        "input": arithmetic.digits_of(operands, digits),
        "output": arithmetic.digits_of(results, digits),
    }
    index = npz["index"] if "index" in npz else slice(None)
    computed = {name: _drawn(golden) for name, golden in npz.items()}
    return {
        name: (ours[what][index], npz[name]) for name, what in computed.items() if what
    }


def _drawn(golden):
    """Tell what an array of three drawn pairs holds; None for a setting."""
    if golden.ndim == 3:
        return "output" if golden.dtype == np.uint8 else "numbers"
    results = golden.ndim == 2 and golden.shape[1] == 3
    return "input" if golden.ndim == 4 else "results" if results else None


def _data_tolerance(name, npz, dtype):
    del npz, dtype
    return None if name == "n_digits" else EXACT


def _ranges_tolerance(name, npz, dtype):
    del dtype
    return EXACT if _drawn(npz[name]) else None


def _starts(*prefixes):
    return lambda keys, info, stem: stem.startswith(prefixes)


CASES = (
    (_starts("tuple_mul_ranges"), _run_ranges, _ranges_tolerance),
    (_starts("arithmetic_datasets"), _run_datasets, _data_tolerance),
    (_starts("tuple_ff", "tuple_rnn"), _run_tuple, _network_tolerance),
    (_starts("addmul_ff", "addmul_rnn"), _run_addmul, _network_tolerance),
)
