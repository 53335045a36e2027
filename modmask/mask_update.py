"""The update of one mask: samples, their loss, the penalty, Adam over the logits."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from modmask import norms
from modmask.evaluate import masked_forward
from modmask.task import Task
from shared import masking, sweep, training
from shared.model import Variables

Draw = Callable[..., PyTree]
Step = Callable[
    [training.TrainState, PyTree], tuple[training.TrainState, dict[str, Array]]
]


class MaskState(NamedTuple):
    """What training a mask needs beside its logits.

    Attributes:
        variables: the network.
        trained: 1 for each parameter whose logits are trained, 0 for the others.
        norms: last gradient norms of each parameter, see `norms`.
        unchanged: int32, updates since a weight was last taken or dropped.
    """

    variables: Variables
    trained: PyTree
    norms: Array
    unchanged: Array


def make_optimizer(hyper: PyTree) -> optax.GradientTransformation:
    """Return Adam over logits, with linear warm-up."""

    def rate(step: Any) -> Array:
        share = (step + 1) / jnp.maximum(hyper["mask_warmup"], 1)
        return -hyper["mask_lr"] * jnp.minimum(1.0, share)

    return optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(rate))


def draw(
    static: Any, logits: PyTree, hyper: PyTree, key: Array, first: Any, n: int | None
) -> PyTree:
    """Draw the masks number first, first + 1, ... of a key, as the settings say.

    Args:
        static: static part of a `MaskConfig`.
        logits: of the masks.
        hyper: traced part, and the update's number as `step`.
        key: of one pass of the network.
        first: number of the first mask.
        n: how many, on a leading axis; None for one without it.
    """
    return masking.draw(
        static.mask_kind,
        logits,
        n,
        key=key,
        tau=static.mask_tau,
        progress=hyper["step"] / static.mask_steps,
        source=static.mask_noise,
        first=first,
    )


def make_loss(task: Task, static: Any, draw: Draw = draw) -> Callable:
    """Return the loss of sampled masks.

    `(logits, variables, rows, first, n, keys, hyper, how) -> (loss, metrics)` draws
    masks first .. first + n - 1 for each pass of the network, and gives each its own
    group of the rows; n = None draws one mask for all rows.
    """

    def loss(logits, variables, rows, first, n, keys, hyper, how):
        def forward(x):
            calls.append(None)
            key = jax.random.fold_in(keys[0], len(calls))
            masks = draw(static, logits, hyper, key, first, n)
            if n is None:
                return masked_forward(task.model, variables, masks)(x)
            apply = masking.batched_apply
            return apply(task.model, variables, masks, x, how=how)[0]

        calls: list[None] = []
        return task.loss(forward, rows, keys[1], hyper["setting"])

    return loss


def make_update(task: Task, static: Any, draw: Draw = draw) -> training.UpdateFn:
    """Return the update rule of masks, see `make_step`, before clipping."""
    loss_fn = make_loss(task, static, draw)

    def update_fn(logits, state, batch, key, hyper):
        gradient = functools.partial(
            _task_gradient, loss_fn, static, logits, state.variables
        )
        (loss, metrics), grads = gradient(batch, key, hyper)
        factors = None
        if static.scale_mask_loss:
            state = state._replace(norms=norms.push(state.norms, grads))
            factors = _like(logits, norms.scales(state.norms))
        push = jax.grad(penalty)(logits, state.variables.params, static, hyper, factors)
        grads = jax.tree.map(jnp.add, grads, push)
        grads = jax.tree.map(jnp.multiply, grads, state.trained)
        return grads, (state, {**metrics, "loss": loss})

    return update_fn


def make_step(task: Task, static: Any, draw: Draw = draw) -> Step:
    """Return the update of a mask, `(train_state, batch) -> (train_state, metrics)`.

    The gradient of the task's loss over N sampled masks, each on its own group of
    rows, and of the penalty; clipped; one step of Adam over the logits.

    Args:
        task: network and losses.
        static: static part of a `MaskConfig`.
        draw: where masks come from.

    Reference:
        Csordás et al. (2021), section 2.
    """
    plain = training.make_train_step(
        make_update(task, static, draw),
        make_optimizer,
        clip_norm=static.grad_clip or None,
        timed=True,
    )

    def step(train_state, batch):
        new, metrics = plain(train_state, batch)
        return _rest(train_state, new, static.mask_patience), metrics

    return step


def _task_gradient(
    loss_fn: Callable,
    static: Any,
    logits: PyTree,
    variables: Variables,
    batch: PyTree,
    key: Array,
    hyper: PyTree,
) -> tuple[tuple[Array, dict[str, Array]], PyTree]:
    """Return loss, metrics and gradient, by all samples at once or one by one."""
    count, keys = static.mask_samples, jax.random.split(key)
    gradient = jax.value_and_grad(loss_fn, has_aux=True)

    def one(part, k):
        return gradient(logits, variables, part, k, None, keys, hyper, "")

    parts = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), batch)
    how, convolves = static.mask_how, False
    if how in ("auto", "loop") and jax.default_backend() == "cpu":
        first = jax.tree.map(lambda a: a[0], parts)
        convolves = sweep.has_convolution(one, first, 0)
    if how == "loop" and not convolves:
        return _sequential(one, parts, count)
    if convolves:
        # Gradients of convolutions are slow in a compiled loop on a CPU.
        pieces = [jax.tree.map(lambda a: a[k], parts) for k in range(count)]  # noqa: B023
        found = [one(piece, k) for k, piece in enumerate(pieces)]
        return jax.tree.map(lambda *leaves: sum(leaves) / count, *found)
    how = "vmap" if how == "auto" else how
    return gradient(logits, variables, batch, 0, count, keys, hyper, how)


def _sequential(one: Callable, parts: PyTree, count: int) -> PyTree:
    """Average over samples in a compiled loop, with the memory of one."""
    first = jax.tree.map(lambda a: a[0], parts)
    zero = jax.eval_shape(one, first, jnp.int32(0))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), zero)

    def body(total, k):
        part = jax.tree.map(lambda a: a[k], parts)
        return jax.tree.map(jnp.add, total, one(part, k)), None

    total, _ = jax.lax.scan(body, zero, jnp.arange(count))
    return jax.tree.map(lambda leaf: leaf / count, total)


def penalty(
    logits: PyTree, params: PyTree, static: Any, hyper: PyTree, scales: PyTree | None
) -> Array:
    """Return what pushes weights out of the mask: λ / batch_size times the penalty.

    Args:
        logits: of a mask.
        params: what is masked; a logit counts for each weight that it covers.
        static: static part of a `MaskConfig`.
        hyper: traced part, and the update's number as `step`.
        scales: of each parameter's share of the linear penalty.
    """
    factor = hyper["mask_loss_weight"] / static.batch_size
    if static.mask_penalty == "linear":
        return factor * masking.linear_penalty(logits, scales, params)
    progress = hyper["step"] / static.mask_steps
    settings = {"tau": static.mask_tau, "progress": progress, "params": params}
    if static.mask_penalty == "l0":
        return factor * masking.expected_l0(logits, static.mask_kind, **settings)
    target = masking.target_density(progress, hyper["mask_density"])
    apart = masking.density_penalty(logits, target, static.mask_kind, **settings)
    return factor * apart


def _rest(
    old: training.TrainState, new: training.TrainState, patience: int
) -> training.TrainState:
    """Leave a mask as it is once it has not changed for `patience` updates."""
    if patience == 0:
        return new
    moved = jax.tree.map(
        lambda a, b: jnp.any((a > 0) != (b > 0)), old.params, new.params
    )
    changed = jnp.any(jnp.stack(jax.tree.leaves(moved)))
    unchanged = jnp.where(changed, 0, old.state.unchanged + 1)
    new = new._replace(state=new.state._replace(unchanged=unchanged))
    resting = is_at_rest(old, patience)
    choose = lambda a, b: jnp.where(resting, a, b)
    params, state, opt_state = jax.tree.map(choose, old[:3], new[:3])
    return new._replace(params=params, state=state, opt_state=opt_state)


def is_at_rest(train_state: training.TrainState, patience: int) -> Array:
    """Tell whether a mask has not changed for `patience` updates."""
    return train_state.state.unchanged >= patience


def _like(tree: PyTree, values: Array) -> PyTree:
    """Return a tree of the numbers in a vector."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [values[i] for i in range(len(leaves))])


def make_evaluate(task: Task) -> Callable[[training.TrainState, PyTree], dict]:
    """Return `(train_state, batch) -> metrics` of the network with thresholded masks.

    Metrics that are not numbers are left out.
    """

    def evaluate(train_state, batch):
        masks = masking.threshold(train_state.params)
        variables = train_state.state.variables
        metrics = task.evaluate(masked_forward(task.model, variables, masks), batch)
        return {name: value for name, value in metrics.items() if value.ndim == 0}

    return evaluate


def density(train_state: training.TrainState) -> dict[str, Array]:
    """Return the share of the masked weights that a mask keeps."""
    masks = masking.threshold(train_state.params)
    return {"density": masking.density(masks, train_state.state.variables.params)[1]}
