"""Training masks over frozen weights, many at once.

One mask is one member: a network, a sub-function of its task, a seed. Members are
independent; `train_masks` trains them in one program through `sweep.fan_out`.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from modmask import mask_update, norms
from modmask.config import MaskConfig, rows_of_batch
from modmask.task import Stage, Task
from shared import chunk, masking, sweep, training
from shared.config import split
from shared.data import batching
from shared.errors import UsageError
from shared.model import Variables


class Member(NamedTuple):
    """One mask to train.

    Attributes:
        config: settings; those of all members share their static part.
        variables: the network; never changes.
        stage: the sub-function.
        logits: where training starts, None where a parameter has no mask.
        trained: tree like `logits` of booleans, one per parameter: whether its logits
            are trained or stay as they are; None trains all.
    """

    config: MaskConfig
    variables: Variables
    stage: Stage
    logits: PyTree
    trained: PyTree | None = None


def start(member: Member) -> training.TrainState:
    """Return the state in which the training of a mask begins.

    Raises:
        UsageError: for logits that are not finite or do not fit the network.
    """
    logits = jax.tree.map(jnp.asarray, member.logits)
    finite = jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), logits)
    if not all(bool(leaf) for leaf in jax.tree.leaves(finite)):
        raise UsageError("logits", "non-finite values", "finite numbers only")
    masking.apply_masks(member.variables.params, masking.threshold(logits))
    one = lambda flag: jnp.asarray(flag, jnp.result_type(float))
    trained = member.trained
    if trained is None:
        trained = jax.tree.map(lambda _: True, logits)
    state = mask_update.MaskState(
        member.variables,
        jax.tree.map(one, trained),
        norms.start(logits),
        jnp.int32(0),
    )
    _, hyper = split(member.config)
    setting = jax.tree.map(jnp.asarray, member.stage.setting)
    # The noise of a stage must not depend on which others are trained beside it.
    key = jax.random.key(member.config.seed)
    key = jax.random.fold_in(key, zlib.crc32(member.stage.name.encode()))
    hyper = {**hyper, "setting": setting}
    return training.init_state(logits, state, key, hyper, mask_update.make_optimizer)


class Trained(NamedTuple):
    """What `train_masks` returns, one entry per member.

    Attributes:
        logits: trees of arrays on the host.
        history: records of this call.
        failed: None, or the step and metric that became non-finite.
    """

    logits: list[PyTree]
    history: list[list[training.Record]]
    failed: list[chunk.Failure | None]


def train_masks(
    task: Task,
    train: PyTree,
    members: Sequence[Member],
    *,
    valid: Mapping[str, PyTree] | None = None,
    augment: batching.Augment | None = None,
    how: str = "auto",
    mesh: Mesh | None = None,
    checkpoints: Path | None = None,
    log: Callable[[int, int, training.Record], None] | None = None,
    rewind: Callable[[int], None] | None = None,
    watch: Callable[[int, training.TrainState], None] | None = None,
    log_every: int = 100,
    progress: bool | None = None,
    label: str = "masks",
) -> Trained:
    """Train many masks as one program.

    Args:
        task: the network, and what it does.
        train: arrays `[rows, ...]` from which all stages draw.
        members: the masks to train, with equal static settings and structures.
        valid: arrays to evaluate on during training.
        augment: applied to each batch.
        how: schedule over the members, see `sweep.fan_out`.
        mesh: devices that share the members.
        checkpoints, log, rewind, watch, log_every, progress, label: see
            `training.fit`.

    Raises:
        UsageError: if members differ in what one program must share, if stages ask for
            rows that are not there, or logits do not fit.
    """
    static = _common_static(members)
    table, counts = _rows_of(members, batching.rows(train))
    states = []
    for m, member in enumerate(members):
        state = start(member)
        subset = {"rows": table[m], "row_count": counts[m]}
        states.append(state._replace(hyper={**state.hyper, **subset}))
    step, evaluate = (
        mask_update.make_step(task, static),
        mask_update.make_evaluate(task),
    )
    program = training.Program(lambda key, hyper: states[0], step, evaluate)
    patience = static.mask_patience
    rests = lambda state: mask_update.is_at_rest(state, patience)
    batches = batching.from_subsets(rows_of_batch(static), augment=augment)
    fitted = training.fit(
        program,
        sweep.stack(states),
        train,
        batches,
        steps=static.mask_steps,
        log_every=min(log_every, static.mask_steps),
        eval_every=static.eval_every,
        checkpoint_every=static.checkpoint_every or static.eval_every or None,
        evaluate=valid,
        probe=mask_update.density,
        members=True,
        how=how,
        mesh=mesh,
        checkpoints=checkpoints,
        log=log,
        rewind=rewind,
        until=rests if patience else None,
        watch=watch,
        progress=progress,
        label=label,
    )
    logits = sweep.unstack(jax.device_get(fitted.train_state.params))
    return Trained(jax.device_get(logits), fitted.history, fitted.failed)


def _common_static(members: Sequence[Member]) -> Any:
    if not members:
        raise UsageError("members", members, "at least one mask to train")
    statics = {split(member.config)[0] for member in members}
    if len(statics) > 1:
        allowed = "settings that differ in traced fields only"
        raise UsageError("members", f"{len(statics)} kinds of settings", allowed)
    return statics.pop()


def _rows_of(members: Sequence[Member], count: int) -> tuple[Array, Array]:
    """Return the rows of each member's stage, padded to one length, and how many."""
    tables = []
    for member in members:
        rows, name = member.stage.rows, f"rows of stage {member.stage.name!r}"
        rows = np.arange(count) if rows is None else np.asarray(rows)
        if rows.size == 0 or rows.min() < 0 or rows.max() >= count:
            given = "none" if rows.size == 0 else f"{rows.min()} to {rows.max()}"
            raise UsageError(name, given, f"one or more of 0 to {count - 1}")
        tables.append(rows.astype(np.int32))
    length = max(len(rows) for rows in tables)
    padded = [np.pad(rows, (0, length - len(rows))) for rows in tables]
    return jnp.asarray(np.stack(padded)), jnp.asarray([len(r) for r in tables], "int32")
