"""One update of a routing network: two losses, remedies, two learning rates.

Reference: Rosenbaum, Klinger and Riemer (2018), algorithm 2.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from multipath.routing_networks import remedies
from multipath.routing_networks.losses import Losses, Objective
from multipath.routing_networks.trajectory import Trajectory

Hyper = Mapping[str, Any]

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "rmsprop": optax.rmsprop,
    "adam": optax.adam,
}


def objective(static: Any, hyper: Hyper, per_epoch: int) -> Objective:
    """Return what the config minimises.

    Args:
        static, hyper: of the config.
        per_epoch: updates of an epoch.
    """
    return Objective(
        module=static.module_loss,
        final=static.final_reward,
        gamma=hyper["gamma"],
        normalize=static.normalise,
        rate=learning_rates(static, hyper, per_epoch)["routing"],
    )


def exploration(static: Any, hyper: Hyper, steps: int) -> Float[Array, ""]:
    """Return the exploration at `hyper["step"]` of so many, on a straight line."""
    begin, end = hyper["exploration"], hyper["exploration_end"]
    done = jnp.minimum(hyper["step"] / max(steps - 1, 1), 1.0)
    now = begin + (end - begin) * done.astype(begin.dtype)
    # Given from outside it is tripled there, which the published examples never do.
    tripled = static.compat and static.algorithm == "egreedy_reinforce"
    return now / 3 if tripled else now


def remedy(static: Any, hyper: Hyper, trajectory: Trajectory) -> Float[Array, ""]:
    """Return the terms that the config adds against collapse."""
    found = jnp.zeros((), jnp.result_type(float))
    if static.entropy_bonus != 0:
        found -= hyper["entropy_bonus"] * remedies.entropy(trajectory)
    if static.balance_loss != 0:
        found += hyper["balance_loss"] * remedies.imbalance(trajectory)
    if static.z_loss != 0:
        found += hyper["z_loss"] * remedies.score_size(trajectory)
    return found


def total(
    static: Any, hyper: Hyper, found: Losses, trajectory: Trajectory
) -> Float[Array, ""]:
    """Return what an update descends: mean losses of modules and decisions, remedies.

    Args:
        static, hyper: of the config.
        found: losses of a pass in training.
        trajectory: of that pass.
    """
    cost = jnp.mean(found.module) + jnp.mean(found.routing)
    return cost + remedy(static, hyper, trajectory) if trajectory.steps else cost


def make_optimizer(
    static: Any, per_epoch: int
) -> Callable[[Hyper], optax.GradientTransformation]:
    """Return `hyper -> optimiser`: clipping, then one rule for each group.

    Args:
        static: static part of the config.
        per_epoch: updates of an epoch.
    """
    rules = {
        "modules": OPTIMIZERS[static.optimizer],
        "routing": OPTIMIZERS[static.routing_optimizer or static.optimizer],
    }

    def make(hyper: Hyper) -> optax.GradientTransformation:
        rates = learning_rates(static, hyper, per_epoch)
        parts: dict[Hashable, optax.GradientTransformation] = {
            name: rule(rates[name]) for name, rule in rules.items()
        }
        return optax.chain(
            _clip(static.clip_over, hyper["clip"]),
            optax.partition(parts, lambda params: {name: name for name in params}),
        )

    return make


def learning_rates(
    static: Any, hyper: Hyper, per_epoch: int
) -> dict[str, Float[Array, ""]]:
    """Return the learning rate of each group at `hyper["step"]`.

    A group that does not learn in an epoch has rate 0.
    """
    rate = hyper["lr"]
    epoch = hyper.get("step", jnp.zeros((), jnp.int32)) // per_epoch
    factor = jnp.ones((), rate.dtype)
    for begin, value in zip(static.lr_epochs, static.lr_factors, strict=True):
        factor = jnp.where(epoch >= begin, value, factor)
    rates = {"modules": rate * factor, "routing": rate * factor * hyper["routing_lr"]}
    if static.routing_from:
        late = epoch >= static.routing_from
        rates["routing"] = jnp.where(late, rates["routing"], 0)
    if static.modules_until:
        early = epoch < static.modules_until
        rates["modules"] = jnp.where(early, rates["modules"], 0)
    return rates


def _clip(over: str, norm: Float[Array, ""]) -> optax.GradientTransformation:
    """Scale gradients down to a norm, if it is not 0: of all, by group, or modules'."""
    groups = {"all": (("modules", "routing"),), "modules": (("modules",),)}

    def update(updates, state, params=None):
        del params
        changed = dict(updates)
        for names in groups.get(over, (("modules",), ("routing",))):
            part = {name: updates[name] for name in names if name in updates}
            size = optax.tree.norm(part)
            shrink = jnp.where((norm > 0) & (size > norm), norm / size, 1)
            changed |= jax.tree.map(lambda g: g * shrink.astype(g.dtype), part)  # noqa: B023
        return changed, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
