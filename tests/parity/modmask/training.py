"""Training of weights and of masks, and the schedules, against reference files."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from modmask import mask_update, masks, norms, weights
from modmask.config import Config, MaskConfig
from modmask.models.feedforward import feedforward
from modmask.task import Stage
from modmask.tasks import addmul
from shared import masking, training
from shared.config import split
from shared.model import Variables
from tests.parity.modmask.convert import from_tree, to_tree
from tests.parity.runner import Tolerance
from tests.quick import quick


def sizes(npz):
    """Return the hidden layers, and the digits, of the file's network."""
    count = sum(name.startswith("param/layers_") for name in npz) // 2
    hidden = [npz[f"param/layers_{i}_bias"].size for i in range(count)]
    return tuple(hidden[:-1]), hidden[-1] // 10


def setup(npz, dtype, **settings):
    """Return task, parameters and config of the file's addition / multiplication."""
    hidden, digits = sizes(npz)
    task = addmul.make_task(Config(task="addmul_ff", layer_sizes=hidden, digits=digits))
    model = feedforward(20 * digits + 2, 10 * digits, hidden)
    like = jax.eval_shape(model.init, jax.random.key(0)).params
    params = to_tree(npz, "param/", like, dtype=dtype)
    return task, params, like


def batch_of(npz, step):
    """Return the operands of a step; both results are set to the one asked for."""
    output = npz[f"in/{step}/output"]
    return {
        "input": jnp.asarray(npz[f"in/{step}/input"]),
        "operation": jnp.asarray(npz[f"in/{step}/op"]),
        "results": jnp.stack([output, output], axis=1),
    }


def mask_config(npz):
    n, size = int(npz["n_samples"]), int(npz["batch_size"])
    rows = npz["in/0/output"].shape[0]
    return MaskConfig(
        mask_samples=n,
        grad_clip=float(npz["grad_clip"]),
        mask_loss_weight=float(npz["mask_loss_weight"]),
        batch_size=size,
        mask_batch_size=0 if rows == size else rows,
        mask_lr=float(npz["mask_lr"]),
        mask_warmup=int(npz["warmup"]),
        scale_mask_loss=bool(npz["scale_mask_loss"]),
        mask_steps=int(npz["steps"]),
    )


def draw(static, logits, hyper, key, first, n):
    """Replay the file's noise, which the step finds among its traced values."""
    own = hyper["uniform"]
    if n is None:
        own = jax.tree.map(lambda u: u[:, first], own)
    return masking.sample(logits, n, uniform=own)


def run_masks(npz, dtype):
    task, params, like = setup(npz, dtype)
    logits = to_tree(npz, "logit/", like, dtype=dtype)
    config = mask_config(npz)
    static, _ = split(config)
    stage = Stage("golden", np.arange(1))
    begin = masks.start(masks.Member(config, Variables(params), stage, logits))
    out = {}
    for way, make in (("clean", make_clean), ("upstream", make_upstream)):
        if f"{way}/loss/0" not in npz:
            continue
        advance = quick(make(task, static))
        held = jax.tree.map(jnp.zeros_like, params)
        state, record = begin, norms.start(logits)
        for s in range(int(npz["steps"])):
            uniform = to_tree(npz, f"{s}/uniform/", like, dtype=dtype)
            # One sample has no leading axis in the files.
            if int(npz["n_samples"]) == 1:
                uniform = jax.tree.map(lambda u: u[:, None], uniform)
            state = state._replace(hyper={**state.hyper, "uniform": uniform})
            loss, raw, clipped, state, held = advance(state, batch_of(npz, s), held)
            record = norms.push(record, raw)
            means = dict(zip(from_tree(logits, ""), norms.means(record), strict=True))
            found = {
                f"{way}/loss/{s}": loss,
                **from_tree(clipped, f"{way}/grad_clipped/{s}/"),
                **from_tree(state.params, f"{way}/logit_after/{s}/"),
                **{f"{way}/grad_norm_avg/{s}/{k}": v for k, v in means.items()},
            }
            out |= {name: (value, npz[name]) for name, value in found.items()}
            rate = np.minimum(1.0, (s + 1) / max(config.mask_warmup, 1))
            out[f"lr/{s}"] = (config.mask_lr * rate, npz[f"lr/{s}"])
    return out


def task_gradient(task, static, state, batch):
    """Return loss and task gradients with respect to logits and weights."""
    loss_fn = mask_update.make_loss(task, static, draw)
    hyper = {**state.hyper, "step": state.step}
    keys = jax.random.split(state.key)
    n = static.mask_samples

    def loss(logits, variables):
        return loss_fn(logits, variables, batch, 0, n, keys, hyper, "vmap")

    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (value, _), (mask, weight) = gradient(state.params, state.state.variables)
    return value, mask, weight.params


def full_gradient(task, static, state, batch):
    """Return the gradient before clipping, and the state of mask training after."""
    update = mask_update.make_update(task, static, draw)
    hyper = {**state.hyper, "step": state.step}
    grads, (inner, _) = update(state.params, state.state, batch, state.key, hyper)
    return grads, inner


def clipped_by(norm, static, trees):
    scale = jnp.minimum(1.0, static.grad_clip / (norm + 1e-6))
    return jax.tree.map(lambda g: g * scale, trees)


def make_clean(task, static):
    step = mask_update.make_step(task, static, draw)

    def advance(state, batch, held):
        _, raw, _ = task_gradient(task, static, state, batch)
        grads, _ = full_gradient(task, static, state, batch)
        clipped = clipped_by(optax.tree.norm(grads), static, grads)
        after, metrics = step(state, batch)
        return metrics["loss"], raw, clipped, after, held

    return advance


def make_upstream(task, static):
    """Clip by a norm that takes in the weights' gradients, never set to zero."""

    def advance(state, batch, held):
        loss, raw, weight = task_gradient(task, static, state, batch)
        weight = jax.tree.map(jnp.add, held, weight)
        grads, inner = full_gradient(task, static, state, batch)
        norm = optax.tree.norm((grads, weight))
        grads, held = clipped_by(norm, static, (grads, weight))
        optimizer = mask_update.make_optimizer(state.hyper)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        after = state._replace(
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            state=inner,
            step=state.step + 1,
        )
        return loss, raw, grads, after, held

    return advance


def run_weights(npz, dtype):
    task, params, _ = setup(npz, dtype)
    config = Config(
        task="addmul_ff",
        optimizer=str(npz["opt"]),
        weight_decay=float(npz["wd"]),
        grad_clip=float(npz["grad_clip"]),
        lr=float(npz["lr"]),
        lr_warmup=int(npz["lr_warmup"]),
        lr_steps=tuple(int(i) for i in npz["lr_sched_steps"]),
        lr_gamma=float(npz["lr_sched_gamma"]),
    )
    static, hyper = split(config)
    program = weights.build(task, static)
    optimizer = weights.make_optimizer(static)
    hyper = {**hyper, "setting": ()}
    key = jax.random.key(0)
    state = training.init_state(params, (), key, hyper, optimizer)
    step = quick(program.step)
    schedule, rates, out = weights.make_schedule(static), [], {}
    for s in range(int(npz["steps"])):
        rates.append(schedule(state.step, hyper))
        state, metrics = step(state, batch_of(npz, s))
        found = from_tree(state.params, f"after/{s}/")
        out |= {name: (value, npz[name]) for name, value in found.items()}
        out[f"loss/{s}"] = (metrics["loss"], npz[f"loss/{s}"])
    return {**out, "lrs": (np.asarray(rates), npz["lrs"])}


def run_schedules(npz, dtype):
    def rates(iterations, **settings):
        static, hyper = split(Config(**settings))
        steps = jnp.asarray(iterations, "int32")
        return weights.make_schedule(static)(steps, hyper)

    step = rates(npz["step_iters"], lr=0.1, lr_steps=(32000, 48000))
    warmup = rates(npz["warmup_iters"], lr=1e-4, lr_warmup=5000)
    paper = rates(npz["warmup_iters"], lr=1e-4, lr_inverse_root=True)
    return {
        "step_lrs": (step, npz["step_lrs"]),
        "warmup_lrs": (warmup, npz["warmup_lrs"]),
        "paper_lrs_lr1e-4": (paper, npz["paper_lrs_lr1e-4"]),
    }


OUTPUTS = (
    "clean/ upstream/ lr/ loss/ after/ lrs step_lrs warmup_lrs paper_lrs"
).split()


def tolerance(name, npz, dtype):
    if not name.startswith(tuple(OUTPUTS)):
        return None
    if dtype == np.float64:
        return Tolerance(1e-9, 1e-11)
    gradient = "grad" in name
    return Tolerance(1e-3 if gradient else 2e-4, 1e-5)


def stem_is(prefix):
    return lambda keys, meta, stem: stem.startswith(prefix)


CASES = (
    (lambda keys, meta, stem: "clean/loss/0" in keys, run_masks, tolerance),
    (
        lambda keys, meta, stem: {"after/0/layers_0_bias", "lrs"} <= keys,
        run_weights,
        tolerance,
    ),
    (stem_is("lr_schedules"), run_schedules, tolerance),
)
