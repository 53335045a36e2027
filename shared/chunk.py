"""The compiled work between two wake-ups of the host: many steps, or an evaluation.

A loop over steps inside the program is fastest (no dispatch), except on a CPU when
a step holds gradients of convolutions, which XLA then runs tens of times slower;
there the compiled step is called from Python, with the batch gathered inside it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from shared import sweep
from shared.data import batching

Failure = tuple[int, str]
"""Step and name of the metric that was not finite."""


class Tally(NamedTuple):
    """Running account of the metrics of a chunk.

    Attributes:
        total: sum of each metric over the steps before the first failure.
        count: int32, those steps.
        failed_step: int32, the first step with a non-finite metric, else -1.
        failed_metric: int32, the place of that metric in the sorted names.
    """

    total: dict[str, Array]
    count: Array
    failed_step: Array
    failed_metric: Array


def _record(tally: Tally, metrics: Mapping[str, Array], step: Array) -> Tally:
    finite = jnp.stack([jnp.all(jnp.isfinite(metrics[k])) for k in sorted(metrics)])
    running = tally.failed_step < 0
    good, fails_now = running & jnp.all(finite), running & ~jnp.all(finite)
    return Tally(
        {k: v + jnp.where(good, metrics[k], 0) for k, v in tally.total.items()},
        tally.count + good.astype(tally.count.dtype),
        jnp.where(fails_now, step, tally.failed_step),
        jnp.where(fails_now, jnp.argmin(finite).astype("int32"), tally.failed_metric),
    )


def make_advance(
    step_fn: Callable[[Any, PyTree], tuple[Any, dict[str, Array]]],
    train_state: Any,
    train: PyTree,
    batches: batching.Batches,
    *,
    members: bool,
    how: str,
    schedule: str,
    mesh: Any,
) -> Callable[[Any, int, int], tuple[Any, list[Tally]]]:
    """Build `advance(train_state, step, target) -> (train_state, tallies)`.

    Args:
        step_fn: a program's step, `(train_state, batch) -> (train_state, metrics)`.
        train_state: a state of the kind that will come, for its shapes.
        train: training arrays.
        batches: how batches are drawn from them.
        members: whether states have a leading member axis.
        how, schedule, mesh: as for `training.fit`; the mesh is that of the members.
    """
    work = _work(step_fn, batches)
    one = jax.eval_shape(
        lambda s: jax.tree.map(lambda x: x[0], s) if members else s, train_state
    )
    shapes = jax.eval_shape(work.first, one, train)
    empty = lambda: _no_tally(shapes)

    def scanned(state, arrays, length):
        plan = work.plan(state, arrays)
        body = lambda _, carry: work.single(carry, arrays, plan)
        return jax.lax.fori_loop(0, length, body, (state, empty()))

    slow_scan = jax.default_backend() == "cpu" and sweep.has_convolution(
        work.first, one, train
    )
    if schedule == "scan" or (schedule == "auto" and not slow_scan):
        run = _over_members(jax.jit(scanned), members, how, mesh)
    elif members and how in ("vmap", "map"):
        mapped = sweep.fan_out(work.single, how=how, in_axes=(0, None, 0), mesh=mesh)
        plans = sweep.fan_out(work.plan, how=how, in_axes=(0, None))
        count = jax.tree.leaves(train_state)[0].shape[0]
        many = lambda: jax.tree.map(lambda x: jnp.stack([x] * count), empty())
        run = _stepped(mapped, plans, many)
    else:
        single = jax.jit(work.single, donate_argnums=0)
        stepped = _stepped(single, jax.jit(work.plan), empty)
        run = _over_members(stepped, members, "loop", mesh)

    def advance(state, step, target):
        tallies = []
        while step < target:
            # A chunk ends with its epoch because the next one has its own plan.
            epoch_end = (step // batches.per_epoch + 1) * batches.per_epoch
            length = min(target, epoch_end) - step
            state, tally = run(state, train, np.int32(length))
            tallies.append(tally)
            step += length
        return state, tallies

    return advance


class _Work(NamedTuple):
    """The pure functions of one member that all schedules are made of.

    Attributes:
        plan: `(state, arrays) -> plan` of the epoch that the state is in.
        single: `((state, tally), arrays, plan)` of one step, and what came of it.
        first: `(state, arrays) -> metrics` of one step.
    """

    plan: Callable[..., Any]
    single: Callable[..., Any]
    first: Callable[..., dict[str, Array]]


def _work(step_fn: Callable, batches: batching.Batches) -> _Work:
    def plan(state, arrays):
        del arrays
        key = jax.random.fold_in(jax.random.fold_in(state.key, 1), 0)
        return batches.plan(key, state.step // batches.per_epoch, state.hyper)

    def draw(state, arrays, plan):
        key = jax.random.fold_in(jax.random.fold_in(state.key, 1), 1)
        key = jax.random.fold_in(key, state.step)
        return batches.take(arrays, plan, state.step % batches.per_epoch, key)

    def single(carry, arrays, plan):
        state, tally = carry
        new_state, metrics = step_fn(state, draw(state, arrays, plan))
        return new_state, _record(tally, metrics, state.step)

    def first(state, arrays):
        return step_fn(state, draw(state, arrays, plan(state, arrays)))[1]

    return _Work(plan, single, first)


def _no_tally(shapes: Mapping[str, Any]) -> Tally:
    zero = {k: jnp.zeros(m.shape, m.dtype) for k, m in shapes.items()}
    return Tally(zero, jnp.int32(0), jnp.int32(-1), jnp.int32(0))


def _stepped(single: Callable, plan_of: Callable, empty: Callable) -> Callable:
    """Call a compiled step from Python, handing its buffers on from step to step."""

    def chunk(state, arrays, length):
        plan = plan_of(state, arrays)
        carry = jax.tree.map(jnp.copy, state), empty()
        for _ in range(int(length)):
            carry = single(carry, arrays, plan)
        return carry

    return chunk


def _over_members(fn: Callable, members: bool, how: str, mesh: Any) -> Callable:
    if not members:
        return fn
    return sweep.fan_out(fn, how=how, in_axes=(0, None, None), mesh=mesh)


def read_tallies(
    tallies: Sequence[Tally], members: bool
) -> list[tuple[dict[str, float], Failure | None]]:
    """Fetch the mean of each metric and the first failure, one pair per member."""
    host = jax.device_get(list(tallies))
    if not members:
        host = jax.tree.map(lambda x: x[None], host)
    names = sorted(host[0].total)
    out = []
    for member in range(host[0].count.shape[0]):
        counted = max(sum(int(t.count[member]) for t in host), 1)
        means = {k: sum(float(t.total[k][member]) for t in host) for k in names}
        failure = None
        for tally in reversed(host):
            if tally.failed_step[member] >= 0:
                metric = names[int(tally.failed_metric[member])]
                failure = int(tally.failed_step[member]), metric
        out.append(({k: v / counted for k, v in means.items()}, failure))
    return out


def make_assess(
    evaluate: Callable[[Any, PyTree], dict[str, Array]],
    splits: Mapping[str, PyTree],
    probe: Callable[[Any], dict[str, Array]] | None = None,
    *,
    members: bool,
    how: str,
    mesh: Any,
    size: int = 2000,
) -> Callable[[Any], list[dict[str, Any]]]:
    """Build `assess(train_state) -> one record per member`.

    Args:
        evaluate: a program's `evaluate`, means over the rows of a batch: numbers, or
            small arrays of them, which become nested lists.
        splits: arrays by name; a record's keys are `name/metric`.
        probe: `train_state -> metrics` that need no split (angles, norms, ...).
        members, how, mesh: as for `make_advance`.
        size: largest number of rows evaluated at once.
    """

    def part(length):
        fn = jax.jit(
            lambda state, arrays, start: evaluate(
                state, batching.slice_rows(arrays, start, length)
            )
        )
        return _over_members(fn, members, how, mesh)

    lengths = {
        length
        for arrays in splits.values()
        for _, length in _slices(batching.rows(arrays), size)
    }
    parts = {length: part(length) for length in lengths}
    if probe is not None:
        mapped = sweep.fan_out(jax.jit(probe), how=how, mesh=mesh) if members else None
        probe = mapped or jax.jit(probe)

    def assess(train_state):
        means: dict[str, Any] = {} if probe is None else dict(probe(train_state))
        for name, arrays in splits.items():
            count = batching.rows(arrays)
            found = [
                (length / count, parts[length](train_state, arrays, np.int32(start)))
                for start, length in _slices(count, size)
            ]
            for metric in found[0][1]:
                means[f"{name}/{metric}"] = sum(w * m[metric] for w, m in found)
        host = {k: np.asarray(v, float) for k, v in jax.device_get(means).items()}
        if not members:
            host = {k: v[None] for k, v in host.items()}
        count = len(next(iter(host.values())))
        return [{k: v[i].tolist() for k, v in host.items()} for i in range(count)]

    return assess


def _slices(count: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(size, count - start)) for start in range(0, count, size)]
