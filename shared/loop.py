"""The host's part of training: from wake-up to wake-up, on from a checkpoint if any."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from tqdm import tqdm

from shared import checkpoint, chunk
from shared.journal import Cadence, Journal


def run(
    train_state: Any,
    advance: Callable[[Any, int, int], tuple[Any, list[chunk.Tally]]],
    assess: Callable[[Any], list[dict[str, Any]]] | None,
    cadence: Cadence,
    journal: Journal,
    checkpoints: Path | None,
    *,
    members: bool,
    rewind: Callable[[int], None] | None = None,
    until: Callable[[Any], Array] | None = None,
    watch: Callable[[int, Any], None] | None = None,
    progress: bool | None = None,
    label: str = "",
) -> Any:
    """Train to the end and return the last state.

    Args:
        train_state: the state to start from where there is no checkpoint.
        advance, assess: from `chunk`; None evaluates nothing.
        cadence: when the host wakes up.
        journal: takes records and failures.
        checkpoints: directory of checkpoints; None saves nothing.
        members, rewind, until, watch, progress, label: see `training.fit`.

    Raises:
        FloatingPointError: if a metric of a single run becomes non-finite.
    """
    step = 0
    restored = _restore(checkpoints, train_state)
    if rewind is not None:
        rewind(-1 if restored is None else restored[0])
    if restored is not None and checkpoints is not None:
        step, train_state = restored
        if members:
            journal.load_failures(checkpoints, np.asarray(train_state.step), step)
    elif assess is not None:
        journal.write(0, assess(train_state))
    hidden = None if progress is None else not progress
    with tqdm(
        total=cadence.steps, initial=step, desc=label, unit="step", disable=hidden
    ) as bar:
        return _train(
            train_state,
            step,
            advance,
            assess,
            cadence,
            journal,
            checkpoints,
            members=members,
            done=_all_done(until, members),
            watch=watch,
            bar=bar,
        )


def _train(
    train_state: Any,
    step: int,
    advance: Callable,
    assess: Callable | None,
    cadence: Cadence,
    journal: Journal,
    checkpoints: Path | None,
    *,
    members: bool,
    done: Callable[[Any], bool],
    watch: Callable[[int, Any], None] | None,
    bar: tqdm,
) -> Any:
    """Go from wake-up to wake-up: look for failures, record, evaluate, save."""
    saved = step if step > 0 else None
    while step < cadence.steps and not journal.all_failed and not done(train_state):
        target = cadence.next(step)
        new_state, tallies = advance(train_state, step, target)
        found = chunk.read_tallies(tallies, members)
        newly = journal.note_failures([failure for _, failure in found])
        if newly and not members:
            _stop(newly[0], checkpoints, saved)
        if newly and checkpoints is not None:
            journal.save_failures(checkpoints)
        train_state = _keep_failed(train_state, new_state, journal.failed)
        records = [_prefixed("batch", means) for means, _ in found]
        if assess is not None and cadence.due(target, cadence.evaluate):
            pairs = zip(records, assess(train_state), strict=True)
            records = [{**means, **assessed} for means, assessed in pairs]
            if watch is not None:
                watch(target, train_state)
        journal.write(target, records)
        if checkpoints is not None and cadence.due(target, cadence.save):
            checkpoint.save(checkpoints, target, train_state)
            saved = target
        bar.update(target - step)
        bar.set_postfix_str(journal.headline())
        step = target
    if checkpoints is not None and saved != step and done(train_state):
        checkpoint.save(checkpoints, step, train_state)
    return train_state


def _all_done(
    until: Callable[[Any], Array] | None, members: bool
) -> Callable[[Any], bool]:
    if until is None:
        return lambda train_state: False
    fn = jax.jit(jax.vmap(until) if members else until)
    return lambda train_state: bool(np.all(fn(train_state)))


def _prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}


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


def _restore(checkpoints: Path | None, train_state: Any) -> tuple | None:
    if checkpoints is None or not checkpoints.exists():
        return None
    restored = checkpoint.restore(checkpoints, train_state)
    if restored is None and checkpoint.steps(checkpoints):
        message = f"no checkpoint in {checkpoints} is whole; training begins again"
        warnings.warn(message, stacklevel=3)
    return restored
