"""Rewards: one for each action by what was chosen before, one for the final answer.

Reference: Rosenbaum, Klinger and Riemer (2018), section 3.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from shared.errors import UsageError, check_choice, check_range

KINDS = ("zero", "manual", "collaboration", "running_average")
REMEMBERING = ("collaboration", "running_average")
"""Kinds whose rewards come from the actions before."""

FINALS = ("neg_loss", "correct")
"""Kinds of rewards of answers."""


@dataclass(frozen=True)
class Reward:
    """The reward of each action.

    Attributes:
        kind: zero; manual, `table[a]`; collaboration, rho times the share of the action
            among the last `window` ones; running_average, rho times its share when
            older actions count less.
        rho: weight.
        window: number of actions that count. In a running average one that is as old
            counts a tenth of a new one.
        table: rewards of the actions, for manual ones.
        in_eval: whether actions of evaluation passes count as well.
        ratio_power: power of rho in collaboration; the published program has 2.

    Raises:
        UsageError: for settings out of range.
    """

    kind: str = "zero"
    rho: float | int = 0.1
    window: int = 256
    table: tuple[float | int, ...] = ()
    in_eval: bool = True
    ratio_power: int = 1

    def __post_init__(self):
        check_choice("kind", self.kind, KINDS)
        check_range("rho", self.rho, low=0)
        check_range("window", self.window, low=1)
        check_range("ratio_power", self.ratio_power, low=0)
        if self.kind == "manual" and not self.table:
            raise UsageError("table", self.table, "a reward for each action")
        for number in self.table:
            check_range("table", number)


class Window(NamedTuple):
    """The last actions.

    Attributes:
        ring: actions in the order of the places; -1 where there is none yet.
        place: where the next one goes.
        counts: how often each action is in the ring.
    """

    ring: Int[Array, " window"]
    place: Int[Array, ""]
    counts: Int[Array, " actions"]


State = Window | Float[Array, " actions"] | tuple[()]
"""What a reward remembers: a window, running shares, or nothing."""


def init(reward: Reward, actions: int) -> State:
    """Return the memory before the first action.

    Args:
        reward: its settings.
        actions: how many there are.

    Raises:
        UsageError: if the table has another length.
    """
    if reward.kind == "manual" and len(reward.table) != actions:
        raise UsageError("table", reward.table, f"{actions} rewards, one for each")
    if reward.kind == "collaboration":
        ring = jnp.full(reward.window, -1, jnp.int32)
        return Window(ring, jnp.int32(0), jnp.zeros(actions, jnp.int32))
    if reward.kind == "running_average":
        return jnp.zeros(actions, jnp.result_type(float))
    return ()


def size(state: State) -> int:
    """Return how many actions a memory is of; 0 for one of nothing."""
    return len(state.counts if isinstance(state, Window) else state)


def register(
    reward: Reward,
    state: State,
    action: Int[Array, " n"],
    mask: Bool[Array, " n"] | None = None,
) -> State:
    """Return the memory after some actions, as if they came one by one.

    Args:
        reward: its settings.
        state: the memory before.
        action: in the order of the batch.
        mask: which of them were taken; None means all.
    """
    if _forgetful(state) or not action.size:
        return state
    taken = jnp.ones(action.shape, bool) if mask is None else mask
    if isinstance(state, Window):
        return _slide(state, action, taken)
    return _fade(10 ** (-1 / reward.window), jnp.asarray(state), action, taken)


def _slide(window: Window, action: Array, taken: Array) -> Window:
    """Overwrite the oldest places by the newest actions."""
    size = len(window.ring)
    later = jnp.cumsum(taken[::-1], dtype=jnp.int32)[::-1]
    number = later[0]
    # Several actions for one place would be written in any order.
    kept = taken & (later <= size)
    places = jnp.where(kept, (window.place + number - later) % size, size)
    ring = window.ring.at[places].set(action.astype(jnp.int32), mode="drop")
    kinds = jnp.arange(len(window.counts), dtype=jnp.int32)
    counts = jnp.sum(ring[:, None] == kinds[None], 0, dtype=jnp.int32)
    return Window(ring, (window.place + number) % size, counts)


def _fade(alpha: float, shares: Array, action: Array, taken: Array) -> Array:
    """Return α^n f + (1 - α) Σ_i α^(n - i) e_(a_i), n actions.

    The very first action has the weight of all that came before: it counts whole.
    """
    dtype = shares.dtype
    later = jnp.cumsum(taken[::-1], dtype=jnp.int32)[::-1]
    number = later[0]
    fading = jnp.asarray(alpha, dtype) ** (later - 1).astype(dtype)
    first = (later == number) & ~jnp.any(shares > 0)
    weight = jnp.where(taken, jnp.where(first, 1, 1 - alpha) * fading, 0)
    chosen = jax.nn.one_hot(action, len(shares), dtype=dtype)
    old = jnp.asarray(alpha, dtype) ** number.astype(dtype) * shares
    return old + jnp.sum(weight.astype(dtype)[:, None] * chosen, 0)


def query(
    reward: Reward, state: State, action: Int[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return the rewards of actions, 0 before any was registered.

    Args:
        reward: its settings.
        state: after all actions of the pass were registered.
        action: any shape.
    """
    dtype = jnp.result_type(float)
    if reward.kind == "manual":
        return jnp.asarray(reward.table, dtype)[action]
    if _forgetful(state):
        return jnp.zeros(action.shape, dtype)
    if isinstance(state, Window):
        number = jnp.maximum(jnp.sum(state.counts), 1).astype(dtype)
        rho = jnp.asarray(reward.rho, dtype) ** reward.ratio_power
        return (rho * state.counts.astype(dtype) / number)[action]
    return reward.rho * jnp.asarray(state)[action]


def _forgetful(state: State) -> bool:
    return isinstance(state, tuple) and not state


def final_reward(
    kind: str,
    module_loss: Float[Array, " batch"],
    outputs: Shaped[Array, "answers ..."] | None = None,
    y: Shaped[Array, "targets ..."] | None = None,
    scale: float | int = 1.0,
) -> Float[Array, " batch"]:
    """Return the reward of each sample's answer, a constant.

    Args:
        kind: neg_loss, the negative loss; correct, +1 for the right class, else -1.
        module_loss: of each sample.
        outputs: scores of the classes, or the class itself where there is one number.
        y: the same of the target.
        scale: factor. The published program leaves it out.

    Raises:
        UsageError: for another kind, lengths that differ, or classes that are missing.
    """
    check_choice("final", kind, FINALS)
    for name, given in {"outputs": outputs, "y": y}.items():
        if given is None and kind == "correct":
            raise UsageError(name, None, "an array, since the reward compares classes")
        if given is not None and len(given) != len(module_loss):
            allowed = f"{len(module_loss)} rows, one for each loss"
            raise UsageError(name, f"{len(given)} rows", allowed)
    if kind == "neg_loss":
        return lax.stop_gradient(-scale * module_loss)
    assert outputs is not None and y is not None
    reward = jnp.where(_classes(outputs) == _classes(y), scale, -scale)
    return reward.astype(module_loss.dtype)


def _classes(scores: Array) -> Array:
    if scores.size == len(scores):
        return scores.reshape(-1)
    return jnp.argmax(scores, 1).reshape(len(scores))
