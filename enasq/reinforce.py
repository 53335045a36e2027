"""How the controller learns: REINFORCE with a moving baseline and an entropy bonus.

References: Williams (1992); Pham et al. (2018), section 2.2.
"""

from typing import Any, NamedTuple

import jax
import optax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int, Key

from enasq import controller, optimizer
from enasq.controller import Hyper, Params, Settings


class State(NamedTuple):
    """All that an update changes.

    Attributes:
        params: of the controller.
        optimizer: moments of Adam.
        baseline: what rewards are measured from.
        rewards: number of rewards seen.
    """

    params: Params
    optimizer: Any
    baseline: Float[Array, ""]
    rewards: Int[Array, ""]


def init(key: Key[Array, ""], settings: Settings, hyper: Hyper) -> State:
    """Return the state before the first update; the key draws the parameters."""
    params = controller.init(key, settings)
    moments = _adam(hyper).init(params)
    return State(params, moments, jnp.zeros(()), jnp.zeros((), jnp.int32))


def advantages(
    rewards: Float[Array, " samples"],
    baseline: Float[Array, ""],
    seen: Int[Array, ""],
    settings: Settings,
    hyper: Hyper,
) -> tuple[Float[Array, " samples"], Float[Array, ""]]:
    """Measure rewards from the baseline, which every one of them moves in turn.

        b_t = b_{t-1} - (1 - decay) (b_{t-1} - R_t),   A_t = R_t - b_{t-1}

    With the baseline `updated`, A_t = R_t - b_t, and b_0 is 0 instead of R_1.

    Args:
        rewards: R, in the order of the samples.
        baseline, seen: b, and the number of rewards that it has seen.
        settings, hyper: of the controller.

    Returns:
        The advantages and the new baseline.
    """
    updated = settings.baseline == "updated"
    if not updated:
        baseline = jnp.where(seen == 0, rewards[0], baseline)

    def one(before, reward):
        after = before - (1 - hyper["baseline_decay"]) * (before - reward)
        return after, reward - (after if updated else before)

    after, found = lax.scan(one, baseline.astype(rewards.dtype), rewards)
    return found, after


def update(
    state: State,
    arcs: Int[Array, "samples 2 blocks 4"],
    rewards: Float[Array, " samples"],
    settings: Settings,
    hyper: Hyper,
) -> tuple[State, dict[str, Array]]:
    """Make one step of Adam on the mean gradient of all sampled architectures.

    Args:
        state: before the update; it drew the architectures.
        arcs: the architectures.
        rewards: what each one is worth, such as its accuracy on validation images.
        settings, hyper: of the controller.

    Returns:
        The new state, and the metrics of `gradient`.
    """
    grads, metrics = gradient(state, arcs, rewards, settings, hyper)
    return descend(state, grads, metrics, hyper, samples=len(arcs)), metrics


def gradient(
    state: State,
    arcs: Int[Array, "samples 2 blocks 4"],
    rewards: Float[Array, " samples"],
    settings: Settings,
    hyper: Hyper,
) -> tuple[Params, dict[str, Array]]:
    """Return the gradient of the loss, without the l2 penalty.

    The loss of a sample is `-log p(arc) A`, less `entropy_weight` times its entropy if
    that is a bonus in the loss.

    Args:
        state, arcs, rewards, settings, hyper: as of `update`.

    Returns:
        The gradient, and means over the samples: `loss`, `reward`, `entropy`,
        `neg_log_prob`; with them `baseline`, after all samples, and `grad_norm`, with
        the l2 penalty.
    """

    def mean_loss(params):
        out = jax.vmap(lambda arc: controller.score(params, arc, settings, hyper))(arcs)
        worth, bonus = rewards, hyper["entropy_weight"] * out.entropy
        if settings.entropy == "reward":
            worth = rewards + lax.stop_gradient(bonus)
            bonus = jnp.zeros_like(bonus)
        gains, after = advantages(worth, state.baseline, state.rewards, settings, hyper)
        metrics = {
            "reward": jnp.mean(worth),
            "entropy": jnp.mean(out.entropy),
            "neg_log_prob": -jnp.mean(out.log_prob),
            "baseline": after,
        }
        return jnp.mean(-out.log_prob * gains - bonus), metrics

    found = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    (loss, metrics), grads = found
    norm = optimizer.gradient_norm(grads, state.params, hyper["l2"])
    return grads, {"loss": loss, **metrics, "grad_norm": norm}


def descend(
    state: State,
    grads: Params,
    metrics: dict[str, Array],
    hyper: Hyper,
    *,
    samples: int,
) -> State:
    """Make the step of Adam, and take over the baseline of the metrics."""
    steps, moments = _adam(hyper).update(grads, state.optimizer, state.params)
    params: Any = optax.apply_updates(state.params, steps)
    return State(params, moments, metrics["baseline"], state.rewards + samples)


def _adam(hyper: Hyper) -> optax.GradientTransformation:
    return optimizer.make_optimizer("adam")(hyper)
