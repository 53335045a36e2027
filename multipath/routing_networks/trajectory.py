"""What a forward pass leaves behind: which agent chose what, for every sample.

Reference: Rosenbaum, Klinger and Riemer (2018), section 3; Rosenbaum et al. (2019).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from multipath.routing_networks.checks import check_lengths
from multipath.routing_networks.settings import Decision
from shared.errors import UsageError

Memory = dict[str, dict[str, PyTree]]
"""By decision: `history` of its per-action reward, and what tabular rules keep."""


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """Consecutive or scanned calls of one decision; arrays `[depth, batch, ...]`.

    Attributes:
        mask: which samples executed the step.
        agent: which agent acted.
        action: which module it chose, 0 where masked.
        exploratory: whether that is another than the greedy one.
        extra_reward: what a user adds to the per-action reward.
        statistics: what the loss needs: `logp`, `probs`, `mu`, `q`, `adv`, `logits`
            `[depth, batch, actions]`, `v` `[depth, batch]`, and an algorithm's own.
        decision: which one was called; static.
        positions: where in the whole trajectory each of the rows lies; static.
        always: whether every sample executed every step, known before; static.
    """

    mask: Array
    agent: Array
    action: Array
    exploratory: Array
    extra_reward: Array
    statistics: dict[str, Array]
    decision: Decision
    positions: tuple[int, ...]
    always: bool = False

    def tree_flatten(self) -> tuple[tuple, tuple]:
        """Return what varies and what is static."""
        values = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return tuple(values[:6]), tuple(values[6:])

    @classmethod
    def tree_unflatten(cls, static: tuple, leaves: Any) -> "Steps":
        """Put the parts together; leaves may be anything."""
        steps = object.__new__(cls)
        for field, value in zip(
            dataclasses.fields(cls), (*leaves, *static), strict=True
        ):
            object.__setattr__(steps, field.name, value)
        return steps


class Trajectory(NamedTuple):
    """All steps of a batch, and what they depend on beside parameters.

    Attributes:
        tasks: label of each sample's task.
        steps: of all decisions, in order of the calls.
        memory: by decision; what is absent has not begun yet.
    """

    tasks: Int[Array, " batch"] | None
    steps: tuple[Steps, ...]
    memory: Memory


def initialize(
    x: Shaped[Array, "batch ..."],
    tasks: Int[Array, " batch_"] | None = None,
    memory: Memory | None = None,
) -> tuple[Shaped[Array, "batch ..."], Trajectory, None]:
    """Begin a pass: the input, an empty trajectory, and no actions.

    Args:
        x: the batch.
        tasks: label of each sample's task.
        memory: from the pass before, `routing_loss(...)`'s or the trajectory's own.

    Raises:
        UsageError: if there is not one label per sample.
    """
    if tasks is not None and tasks.shape[0] != x.shape[0]:
        allowed = f"{x.shape[0]} labels, one for each sample"
        raise UsageError("tasks", tasks.shape[0], allowed)
    return x, Trajectory(tasks, (), dict(memory or {})), None


def depth(trajectory: Trajectory) -> int:
    """Return how many steps were called."""
    return sum(len(steps.positions) for steps in trajectory.steps)


def gathered(trajectory: Trajectory, name: str) -> Shaped[Array, "depth batch"]:
    """Return a field of all steps in the order of their positions."""
    return ordered(
        trajectory.steps, [getattr(steps, name) for steps in trajectory.steps]
    )


def ordered(
    steps: tuple[Steps, ...], values: list[Shaped[Array, "_ batch ..."]]
) -> Shaped[Array, "depth batch ..."]:
    """Put together what belongs to some steps, in the order of their positions."""
    order = np.argsort([p for part in steps for p in part.positions])
    whole = jnp.concatenate(values) if len(values) > 1 else values[0]
    return whole if (order == np.arange(len(order))).all() else whole[order]


def masks(trajectory: Trajectory) -> Bool[Array, "depth batch"]:
    """Return which steps each sample executed."""
    return gathered(trajectory, "mask")


def actions(trajectory: Trajectory) -> Int[Array, "depth batch"]:
    """Return the modules chosen, 0 where a step was not executed."""
    return gathered(trajectory, "action")


def agents(trajectory: Trajectory) -> Int[Array, "depth batch"]:
    """Return the agents that acted."""
    return gathered(trajectory, "agent")


def add_reward(trajectory: Trajectory, reward: Float[Array, " batch"]) -> Trajectory:
    """Add a reward to the latest step, for the samples that executed it.

    Raises:
        UsageError: if there is no step yet, or not one reward per sample.
    """
    if not trajectory.steps:
        raise UsageError("trajectory", "no step", "at least one decision before")
    *before, last = trajectory.steps
    if reward.shape != last.extra_reward.shape[1:]:
        allowed = f"{last.extra_reward.shape[1]} numbers, one for each sample"
        raise UsageError("reward", reward.shape, allowed)
    extra = last.extra_reward.at[-1].add(reward.astype(last.extra_reward.dtype))
    last = dataclasses.replace(last, extra_reward=extra)
    return trajectory._replace(steps=(*before, last))


def unweighted(trajectory: Trajectory) -> Trajectory:
    """Forget the modules' weights of the latest step: other actions take their place.

    See `algorithms.gumbel` and `selection.select`.
    """
    if not trajectory.steps:
        return trajectory
    *before, last = trajectory.steps
    return trajectory._replace(steps=(*before, without_weights(last)))


def without_weights(steps: Steps) -> Steps:
    """Return steps without the modules' weights among their statistics."""
    kept = {k: value for k, value in steps.statistics.items() if k != "weights"}
    return dataclasses.replace(steps, statistics=kept)


def rewards(
    per_action: Float[Array, "depth batch"],
    mask: Bool[Array, "depth batch"],
    final: Float[Array, " samples"],
    *,
    normalize: bool = True,
) -> Float[Array, "depth batch"]:
    """Share the rewards out over the executed steps of each sample.

    r_t = c_t / T |R| (without |R| if not `normalize`), and R more at the last step.

    Args:
        per_action: c, with what users added.
        mask: of the executed steps, T of a sample.
        final: R.
        normalize: whether per-action rewards are in proportion to the final one.

    Raises:
        UsageError: for another number of final rewards than samples.
    """
    check_lengths(mask.shape[1], final=final)
    after = jnp.flip(jnp.cumsum(jnp.flip(mask, 0), 0), 0)
    share = jnp.abs(final) if normalize else jnp.ones_like(final)
    share = share / jnp.maximum(jnp.sum(mask, 0), 1).astype(final.dtype)
    last = mask & (after == 1)
    found = jnp.where(mask, per_action * share[None], 0)
    return found + jnp.where(last, final[None], 0)


def returns(
    rewards: Float[Array, "depth batch"],
    mask: Bool[Array, "depth batch"],
    gamma: Float[Array, ""] | float | int = 1.0,
) -> Float[Array, "depth batch"]:
    """Add up the rewards to come: G_t = r_t + γ G_t', t' the next executed step.

    Steps that were not executed return 0.
    """

    def back(later, step):
        reward, active = step
        now = jnp.where(active, reward + gamma * later, later)
        return now, jnp.where(active, now, 0)

    begin = jnp.zeros_like(rewards[0]) if len(rewards) else jnp.zeros(0)
    unroll = len(rewards) <= 16
    return lax.scan(back, begin, (rewards, mask), reverse=True, unroll=unroll)[1]


def successors(mask: Bool[Array, "depth batch"]) -> Int[Array, "depth batch"]:
    """Return the next executed step of the same sample; the depth if there is none."""
    size = mask.shape[0]
    place = jnp.where(mask, jnp.arange(size)[:, None], size)
    place = lax.cummin(place, axis=0, reverse=True)
    return jnp.concatenate([place[1:], jnp.full_like(place[:1], size)])


class Following(NamedTuple):
    """What came after some steps, zeros where nothing did; `[depth, batch, ...]`."""

    statistics: dict[str, Array]
    action: Int[Array, "depth batch"]
    terminal: Bool[Array, "depth batch"]


def following(
    trajectory: Trajectory, decision: Decision, names: tuple[str, ...] = ()
) -> Following:
    """Find the successors of a decision's steps.

    A step is terminal if its sample executes none after it, or if the next has another
    number of actions or lacks a statistic.

    Args:
        trajectory: of the whole pass.
        decision: whose steps.
        names: of statistics.
    """
    rows = positions(trajectory, decision)
    usable = np.zeros(depth(trajectory) + 1, bool)
    for steps in trajectory.steps:
        same = steps.decision.actions == decision.actions
        good = same and set(names) <= set(steps.statistics)
        usable[np.array(steps.positions)] = good
    action = _followed(gathered(trajectory, "action"))
    found = {name: _statistic(trajectory, decision, name) for name in names}
    if all(steps.always for steps in trajectory.steps):
        after = [row + 1 for row in rows]
        terminal = jnp.repeat(~usable[np.array(after)][:, None], action.shape[1], 1)
        statistics = {name: take(values, after) for name, values in found.items()}
        return Following(statistics, take(action, after), terminal)
    place = take(successors(masks(trajectory)), rows)
    pick = lambda a: jnp.take_along_axis(
        a, place.reshape(place.shape + (1,) * (a.ndim - 2)), 0
    )
    terminal = ~jnp.asarray(usable)[place]
    return Following(jax.tree.map(pick, found), pick(action), terminal)


def positions(trajectory: Trajectory, decision: Decision) -> list[int]:
    """Return where the steps of a decision lie, in order."""
    own = [s.positions for s in trajectory.steps if s.decision == decision]
    return sorted(p for steps in own for p in steps)


def take(
    values: Shaped[Array, "depth ..."], rows: list[int]
) -> Shaped[Array, "rows ..."]:
    """Return some rows; consecutive ones without a gather."""
    first, size = rows[0], len(rows)
    if rows == list(range(first, first + size)):
        return values[first : first + size]
    return values[np.array(rows)]


def _followed(values: Array) -> Array:
    """Add a row of zeros, which stands for no successor."""
    return jnp.concatenate([values, jnp.zeros_like(values[:1])])


def _statistic(trajectory: Trajectory, decision: Decision, name: str) -> Array:
    """Return a statistic of all steps, zeros where another decision has none."""
    like = next(s for s in trajectory.steps if s.decision == decision)
    shape = like.statistics[name].shape[1:]
    size = depth(trajectory) + 1
    parts, order = [], []
    for steps in trajectory.steps:
        values = steps.statistics.get(name)
        if values is not None and values.shape[1:] == shape:
            parts.append(values)
            order += steps.positions
    missing = sorted(set(range(size)) - set(order))
    parts.append(jnp.zeros((len(missing), *shape), like.statistics[name].dtype))
    return jnp.concatenate(parts)[np.argsort(order + missing)]
