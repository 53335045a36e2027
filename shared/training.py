"""Training: a pure step, and `fit`, the only host loop of the library.

Random streams of a run with base key k: initialisation `fold_in(k, 0)`, data
`fold_in(k, 1)`, noise of step t `fold_in(fold_in(k, 2), t)`. The base key never
changes, so a step depends on the run's key and its number alone.
"""

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree
from tqdm import tqdm

from shared import chunk, parallel, runs
from shared.data import batching
from shared.errors import UsageError, check_choice

Metrics = dict[str, Array]
UpdateFn = Callable[..., tuple[PyTree, tuple[PyTree, Metrics]]]
Record = dict[str, float | int]
LossFn = Callable[..., tuple[Array, tuple[PyTree, Metrics]]]
Optimizer = Callable[[PyTree], optax.GradientTransformation]

FAILED = "failed.json"
"""Beside the checkpoints: per member null, or the step and metric of its failure."""


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
        grads, (state, metrics) = gradients(params, state, batch, key, hyper)
        if axis_name is not None:
            grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
            state = _mean_state(state, axis_name)
        if clip_norm is not None:
            norm = optax.tree.norm(grads)
            scale = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
            grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
            metrics = {**metrics, "gradient_norm": norm}
        updates, opt_state = optimizer(hyper).update(grads, opt_state, params)
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


class Cadence(NamedTuple):
    """When the host wakes up, in steps.

    Attributes:
        steps: total number of updates.
        log: between records of the mean batch metrics.
        evaluate: between evaluations; 0 only at the end.
        save: between checkpoints; 0 only at the end.
    """

    steps: int
    log: int
    evaluate: int
    save: int

    def due(self, step: int, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is due."""
        return step == self.steps or (every > 0 and step % every == 0)

    def next(self, step: int) -> int:
        """The first step after `step` at which anything is due."""
        periods = [n for n in (self.log, self.evaluate, self.save) if n > 0]
        return min([self.steps, *((step // n + 1) * n for n in periods)])


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
    epoch = batches.per_epoch
    eval_every = epoch if eval_every is None else eval_every
    cadence = Cadence(
        steps,
        log_every or epoch,
        eval_every if evaluate else 0,
        (checkpoint_every or epoch) if checkpoints is not None else 0,
    )
    step_fn = program.step
    if mesh is not None:
        train = parallel.replicate(train, mesh)
        evaluate = {k: parallel.replicate(v, mesh) for k, v in (evaluate or {}).items()}
    if mesh is not None and not members:
        train_state = parallel.replicate(train_state, mesh)
        step_fn, mesh = parallel.data_parallel(step_fn, mesh), None
    schedules = {"members": members, "how": how, "mesh": mesh}
    advance = chunk.make_advance(
        step_fn, train_state, train, batches, schedule=schedule, **schedules
    )
    assess = chunk.make_assess(program.evaluate, evaluate or {}, probe, **schedules)
    journal = _Journal(train_state.step.shape[0] if members else 1, epoch, log)

    step = 0
    restored = _restore(checkpoints, train_state)
    if rewind is not None:
        rewind(-1 if restored is None else restored[0])
    if restored is not None:
        step, train_state = restored
        if members:
            journal.failed = _failed_before(checkpoints, train_state, step)
    elif evaluate:
        journal.write(0, assess(train_state))

    saved = None if restored is None else step
    hidden = None if progress is None else not progress
    with tqdm(
        total=steps, initial=step, desc=label, unit="step", disable=hidden
    ) as bar:
        while step < steps and not journal.all_failed:
            target = cadence.next(step)
            new_state, tallies = advance(train_state, step, target)
            found = chunk.read_tallies(tallies, members)
            newly = journal.note_failures([failure for _, failure in found])
            if newly and not members:
                _stop(newly[0], checkpoints, saved)
            if newly and checkpoints is not None and parallel.is_lead():
                checkpoints.mkdir(parents=True, exist_ok=True)
                runs.write_text(checkpoints / FAILED, json.dumps(journal.failed))
            train_state = _keep_failed(train_state, new_state, journal.failed)
            records = [_prefixed("batch", means) for means, _ in found]
            if evaluate and cadence.due(target, cadence.evaluate):
                pairs = zip(records, assess(train_state), strict=True)
                records = [{**means, **assessed} for means, assessed in pairs]
            journal.write(target, records)
            if checkpoints is not None and cadence.due(target, cadence.save):
                _save(checkpoints, target, train_state)
                saved = target
            bar.update(target - step)
            bar.set_postfix_str(journal.headline())
            step = target
    return Fitted(train_state, journal.history, journal.failed)


class _Journal:
    """The records and failures of one call of `fit`, on the host."""

    def __init__(self, count: int, epoch: int, log: Callable | None):
        self.history: list[list[Record]] = [[] for _ in range(count)]
        self.failed: list[chunk.Failure | None] = [None] * count
        self._epoch, self._log, self._start = epoch, log, time.monotonic()

    @property
    def all_failed(self) -> bool:
        return all(self.failed)

    def note_failures(self, found: Sequence[chunk.Failure | None]) -> list:
        newly = []
        for member, failure in enumerate(found):
            if failure is not None and self.failed[member] is None:
                self.failed[member] = failure
                newly.append(failure)
        return newly

    def write(self, step: int, records: Sequence[dict[str, float]]) -> None:
        seconds = round(time.monotonic() - self._start, 3)
        for member, record in enumerate(records):
            if self.failed[member] is None:
                head = {"step": step, "epoch": step / self._epoch}
                line = {**head, **record, "seconds": seconds}
                self.history[member].append(line)
                if self._log is not None:
                    self._log(step, member, line)

    def headline(self) -> str:
        """The mean over members of each accuracy and loss that was last seen."""
        last = [h[-1] for h in self.history if h]
        names = [
            k for k in (last[0] if last else {}) if k.endswith(("accuracy", "loss"))
        ]
        values = {k: np.mean([r[k] for r in last if k in r]) for k in names}
        return " ".join(f"{k} {v:.4g}" for k, v in values.items())


def _prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}


def _check_finite(train: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(train):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not bool(
            jnp.all(jnp.isfinite(leaf))
        ):
            bad = int(jnp.sum(~jnp.isfinite(leaf)))
            name = f"training data {jax.tree_util.keystr(path)}".strip()
            raise UsageError(name, f"{bad} non-finite values", "finite numbers only")


def _keep_failed(old: PyTree, new: PyTree, failed: Sequence) -> PyTree:
    """Freeze failed members at the state they had at the last wake-up."""
    if not any(failed):
        return new
    lost = np.array([f is not None for f in failed])

    def choose(a, b):
        return jnp.where(lost.reshape(lost.shape + (1,) * (b.ndim - 1)), a, b)

    return jax.tree.map(choose, old, new)


def _stop(
    failure: chunk.Failure, checkpoints: Path | None, saved: int | None
) -> NoReturn:
    where = "none" if saved is None else f"step {saved} in {checkpoints}"
    step, metric = failure
    raise FloatingPointError(
        f"{metric} became non-finite at step {step}; last good checkpoint: {where}"
    )


def _restore(checkpoints: Path | None, train_state: TrainState) -> tuple | None:
    if checkpoints is None or not checkpoints.exists():
        return None
    from shared import checkpoint

    restored = checkpoint.restore(checkpoints, train_state)
    if restored is None and checkpoint.steps(checkpoints):
        message = f"no checkpoint in {checkpoints} is whole; training begins again"
        warnings.warn(message, stacklevel=3)
    return restored


def _failed_before(
    checkpoints: Path | None, train_state: TrainState, step: int
) -> list[chunk.Failure | None]:
    """Return the failures up to a checkpoint: a failed member's own step lags."""
    own = np.asarray(train_state.step)
    failed: list[chunk.Failure | None] = [None] * len(own)
    if checkpoints is None or not np.any(own < step):
        return failed
    file = checkpoints / FAILED
    noted = json.loads(file.read_text()) if file.is_file() else failed
    for member in np.flatnonzero(own < step):
        at, metric = noted[member] or (int(own[member]), "a metric")
        failed[member] = at, metric
    return failed


def _save(checkpoints: Path, step: int, train_state: TrainState) -> None:
    from shared import checkpoint

    checkpoint.save(checkpoints, step, train_state)
