"""Training: a pure step, and `fit`, the only host loop of the library.

Random streams of a run with base key k: initialisation `fold_in(k, 0)`, data
`fold_in(k, 1)`, noise of step t `fold_in(fold_in(k, 2), t)`. The base key never
changes, so a step depends on the run's key and its number alone.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from shared import chunk, loop, parallel
from shared.data import batching
from shared.errors import UsageError, check_choice
from shared.journal import Cadence, Journal, Record

Metrics = dict[str, Array]
UpdateFn = Callable[..., tuple[PyTree, tuple[PyTree, Metrics]]]
LossFn = Callable[..., tuple[Array, tuple[PyTree, Metrics]]]
Optimizer = Callable[[PyTree], optax.GradientTransformation]


class TrainState(NamedTuple):
    """Everything that training changes or needs, as one pytree.

    Attributes:
        params: what the optimiser updates.
        state: what the model or the update rule remembers (running statistics, ...).
        opt_state: the optimiser's state.
        step: int32 scalar, updates done.
        key: the run's base key; never changes.
        hyper: traced hyper-parameters, a dict of scalars.
    """

    params: PyTree
    state: PyTree
    opt_state: PyTree
    step: Array
    key: Array
    hyper: PyTree


class Program(NamedTuple):
    """What a system trains: three pure functions.

    Attributes:
        init: `(key, hyper) -> TrainState`.
        step: `(train_state, batch) -> (train_state, metrics)`.
        evaluate: `(train_state, batch) -> metrics`, means over the batch's rows.
    """

    init: Callable[[Array, PyTree], TrainState]
    step: Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]
    evaluate: Callable[[TrainState, PyTree], Metrics]


def init_state(
    params: PyTree, state: PyTree, key: Array, hyper: PyTree, optimizer: Optimizer
) -> TrainState:
    """Return the TrainState at step 0."""
    opt_state = optimizer(hyper).init(params)
    return TrainState(params, state, opt_state, jnp.int32(0), key, hyper)


def init_key(key: Array) -> Array:
    """Return the stream that initialises parameters."""
    return jax.random.fold_in(key, 0)


def data_key(key: Array) -> Array:
    """Return the stream that orders and augments data."""
    return jax.random.fold_in(key, 1)


def noise_key(key: Array, step: Any) -> Array:
    """Return the stream that the update of `step` may use for noise."""
    return jax.random.fold_in(jax.random.fold_in(key, 2), step)


def from_loss(loss_fn: LossFn) -> UpdateFn:
    """Turn a loss into the update rule that follows its gradient.

    Args:
        loss_fn: `(params, state, batch, key, hyper) -> (loss, (new_state, metrics))`.

    Returns:
        `(params, state, batch, key, hyper) -> (grads, (new_state, metrics))`, with
        the loss among the metrics.
    """

    def update_fn(params, state, batch, key, hyper):
        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (state, metrics)), grads = gradient(params, state, batch, key, hyper)
        return grads, (state, {"loss": loss, **metrics})

    return update_fn


def make_train_step(
    update_fn: UpdateFn,
    optimizer: Optimizer,
    *,
    clip_norm: float | None = None,
    accumulate: int = 1,
    axis_name: str | None = None,
    timed: bool = False,
) -> Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]:
    """Build the pure step of a training run.

    Args:
        update_fn: `(params, state, batch, key, hyper) -> (grads, (state, metrics))`
            with gradients in descent sign; `from_loss` makes one from a loss.
        optimizer: `(hyper) -> optax.GradientTransformation`.
        clip_norm: largest global L2 norm of the gradients; None does not clip. The
            norm before clipping is then the metric `gradient_norm`.
        accumulate: micro-batches that a batch is cut into; gradients and metrics are
            averaged over them, the state passes from one to the next.
        axis_name: mesh axis over which gradients, metrics and the numbers in the
            state are averaged, so that all devices go on from the same state.
        timed: whether the rule and the optimiser are told the update's number, as
            `hyper["step"]`.

    Raises:
        UsageError: if `accumulate` or `clip_norm` is not positive, or (at trace time)
            if the batch does not divide into `accumulate` parts.
    """
    if accumulate < 1:
        raise UsageError("accumulate", accumulate, "an integer >= 1")
    if clip_norm is not None and not clip_norm > 0:
        raise UsageError("clip_norm", clip_norm, "a number > 0, or None")

    def gradients(params, state, batch, key, hyper):
        if accumulate == 1:
            return update_fn(params, state, batch, key, hyper)
        parts = []
        for i, part in enumerate(_micro_batches(batch, accumulate)):
            part_key = jax.random.fold_in(key, i)
            grads, (state, metrics) = update_fn(params, state, part, part_key, hyper)
            parts.append((grads, metrics))
        grads, metrics = jax.tree.map(lambda *x: sum(x) / accumulate, *parts)
        return grads, (state, metrics)

    def step(train_state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        params, state, opt_state, count, base, hyper = train_state
        key = noise_key(base, count)
        told = {**hyper, "step": count} if timed else hyper
        grads, (state, metrics) = gradients(params, state, batch, key, told)
        if axis_name is not None:
            grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
            state = _mean_state(state, axis_name)
        if clip_norm is not None:
            norm = optax.tree.norm(grads)
            scale = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
            grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
            metrics = {**metrics, "gradient_norm": norm}
        updates, opt_state = optimizer(told).update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return TrainState(params, state, opt_state, count + 1, base, hyper), metrics

    return step


def _mean_state(state: PyTree, axis_name: str) -> PyTree:
    """Average the floating-point leaves over devices; counts and keys agree anyway."""

    def mean(leaf):
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jax.lax.pmean(leaf, axis_name) if floating else leaf

    return jax.tree.map(mean, state)


def _micro_batches(batch: PyTree, parts: int) -> list[PyTree]:
    size = batching.rows(batch)
    if size % parts:
        raise UsageError("accumulate", parts, f"a divisor of the batch size {size}")
    size //= parts
    return [batching.slice_rows(batch, i * size, size) for i in range(parts)]


class Fitted(NamedTuple):
    """What `fit` returns.

    Attributes:
        train_state: the last state, with a member axis if the first one had it.
        history: the records of this call, one list per member.
        failed: per member None, or the step and metric that became non-finite.
    """

    train_state: TrainState
    history: list[list[Record]]
    failed: list[chunk.Failure | None]


def fit(
    program: Program,
    train_state: TrainState,
    train: PyTree,
    batches: batching.Batches,
    *,
    steps: int,
    log_every: int | None = None,
    eval_every: int | None = None,
    checkpoint_every: int | None = None,
    evaluate: Mapping[str, PyTree] | None = None,
    probe: Callable[[TrainState], Metrics] | None = None,
    members: bool = False,
    how: str = "auto",
    schedule: Literal["auto", "scan", "step"] = "auto",
    mesh: Any = None,
    checkpoints: Path | None = None,
    log: Callable[[int, int, Record], None] | None = None,
    rewind: Callable[[int], None] | None = None,
    until: Callable[[TrainState], Array] | None = None,
    watch: Callable[[int, TrainState], None] | None = None,
    progress: bool | None = None,
    label: str = "",
) -> Fitted:
    """Train for `steps` updates, waking the host only to log, evaluate and save.

    If `checkpoints` holds a good checkpoint, training goes on from there and gives
    the numbers of a run that was never interrupted. Members that had failed by then
    stay failed.

    Args:
        program: from a system's `build`.
        train_state: the state to start from; leading member axis if `members`.
        train: training arrays with equal leading axes, on the device.
        batches: how batches are drawn from `train`.
        steps: total number of updates.
        log_every: steps between records of the mean batch metrics (default: epoch).
        eval_every: steps between evaluations (default: an epoch); 0 at the end only.
        checkpoint_every: steps between checkpoints (default: an epoch).
        evaluate: arrays to evaluate on by name (`{"test": ...}`), also at step 0.
        probe: `train_state -> metrics` recorded with each evaluation.
        members: whether `train_state` holds many independent runs.
        how: schedule over members, see `sweep.fan_out`.
        schedule: "scan" compiles the loop over steps, "step" calls the compiled step
            from Python; "auto" steps only where a scan is slow: convolutions on CPU.
        mesh: devices; shards members if there are any, else each batch (the step
            must then average over the mesh's axis).
        checkpoints: directory of checkpoints; None saves nothing.
        log: called as `log(step, member, record)` for every record.
        rewind: called once with the last step whose records stand: the checkpoint's,
            or -1 for a run that begins.
        until: `train_state -> bool`; training ends at the first wake-up at which it is
            true of every member.
        watch: called as `watch(step, train_state)` after each evaluation, to draw
            pictures, say.
        progress: show a progress bar; None shows it on a terminal only.
        label: stands before the progress bar.

    Raises:
        UsageError: for non-finite training data or an unknown schedule.
        FloatingPointError: if a metric of a single run becomes non-finite; names
            step, metric and last good checkpoint. A failing member instead keeps
            the state of the last wake-up before, and the others go on.
    """
    check_choice("schedule", schedule, ("auto", "scan", "step"))
    _check_finite(train)
    splits, epoch = dict(evaluate or {}), batches.per_epoch
    eval_every = epoch if eval_every is None else eval_every
    cadence = Cadence(
        steps,
        log_every or epoch,
        eval_every if splits else 0,
        (checkpoint_every or epoch) if checkpoints is not None else 0,
    )
    step_fn = program.step
    if mesh is not None:
        train, splits = parallel.replicate((train, splits), mesh)
    if mesh is not None and not members:
        train_state = parallel.replicate(train_state, mesh)
        step_fn, mesh = parallel.data_parallel(step_fn, mesh), None
    schedules = {"members": members, "how": how, "mesh": mesh}
    advance = chunk.make_advance(
        step_fn, train_state, train, batches, schedule=schedule, **schedules
    )
    assess = chunk.make_assess(program.evaluate, splits, probe, **schedules)
    journal = Journal(train_state.step.shape[0] if members else 1, epoch, log)
    train_state = loop.run(
        train_state,
        advance,
        assess if splits else None,
        cadence,
        journal,
        checkpoints,
        members=members,
        rewind=rewind,
        until=until,
        watch=watch,
        progress=progress,
        label=label,
    )
    return Fitted(train_state, journal.history, journal.failed)


def _check_finite(train: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(train):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not bool(
            jnp.all(jnp.isfinite(leaf))
        ):
            bad = int(jnp.sum(~jnp.isfinite(leaf)))
            name = f"training data {jax.tree_util.keystr(path)}".strip()
            raise UsageError(name, f"{bad} non-finite values", "finite numbers only")
