"""The recursive router: one decision, taken again and again until it says stop.

Reference: Cases et al. (2019).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from multipath.routing_networks import decision as decisions
from multipath.routing_networks import scanning
from multipath.routing_networks import selection as selections
from multipath.routing_networks.checks import check_lengths
from multipath.routing_networks.selection import Selection
from multipath.routing_networks.settings import Decision
from multipath.routing_networks.trajectory import Trajectory
from shared.errors import UsageError, check_choice, check_range
from shared.model import Variables

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "none": lambda x: x}


@dataclass(frozen=True)
class Recursive:
    """A router that sends a vector through up to `depth` modules.

    While the action a is not 0, v ← m_(a-1)(v); a = 0 ends it and keeps v. From the
    second module on, the activation of v goes in.

    Attributes:
        decision: the one that is taken each time; it has one action more than there
            are modules.
        modules: what it chooses from; each keeps the width.
        depth: decisions at most.
        activation: relu, tanh or none.
        unroll: whether each of them is compiled by itself.

    Raises:
        UsageError: for settings out of range or not fitting together.
    """

    decision: Decision
    modules: Selection
    depth: int
    activation: str = "relu"
    unroll: bool = False

    def __post_init__(self):
        check_range("depth", self.depth, low=1)
        check_choice("activation", self.activation, ACTIVATIONS)
        if self.decision.actions != self.modules.size + 1:
            allowed = f"{self.modules.size + 1}: the modules, and 0 to stop"
            raise UsageError("decision.actions", self.decision.actions, allowed)
        if self.modules.name and self.modules.name == self.decision.name:
            allowed = "another name than the decision's"
            raise UsageError("modules.name", self.modules.name, allowed)


def init(key: Array, router: Recursive) -> Variables:
    """Return parameters `{"routing": {name: ...}, "modules": ...}` and the memory."""
    keys = jax.random.split(key)
    params, memory = decisions.init(keys[0], router.decision)
    modules, state = selections.init(keys[1], router.modules)
    name = router.decision.name
    kept = {name: dict(memory), **({router.modules.name: state} if state else {})}
    return Variables({"routing": {name: params}, "modules": modules}, kept)


def recurse(
    router: Recursive,
    params: PyTree,
    x: Float[Array, "batch width"],
    trajectory: Trajectory,
    actions: Int[Array, " batch"] | None,
    *,
    key: Array | None = None,
    train: bool = False,
    mask: Bool[Array, "..."] | None = None,
    exploration: Float[Array, ""] | float | int | None = None,
    forced: Int[Array, "..."] | None = None,
    noise: Any = None,
) -> tuple[Float[Array, "batch width"], Trajectory, Int[Array, " batch"] | None]:
    """Take decisions and apply modules until each sample has stopped.

    Args:
        router: its settings.
        params: from `init`.
        x: the vectors.
        trajectory: of the steps before.
        actions: the agent of each sample, all the way.
        key: for sampling, as `decide` needs it.
        train: whether to sample.
        mask: the samples to transform `[batch]`; None means all. Others stay as they
            are.
        exploration: in place of the decision's own.
        forced: actions `[depth, batch]` in place of those chosen; those after a stop do
            not count.
        noise: with a leading axis `depth`, see `decide`.

    Returns:
        The vectors, the longer trajectory (`depth` steps, of which each sample executes
        those up to its stop), and the actions as they came.

    Raises:
        UsageError: see `decide`; or for arrays of the wrong shape, or modules that
            change it.
    """
    batch = x.shape[0]
    check_lengths(batch, mask=mask)
    scanning.check_call(
        batch, router.depth, router.decision, actions, mask, forced, noise
    )
    keys = None if key is None else jax.random.split(key, router.depth)

    def once(carry, now, inner):
        value, active = carry
        first, *rows = now
        value, inner, action = decisions.decide(
            router.decision,
            params["routing"][router.decision.name],
            value,
            inner,
            actions,
            mask=active,
            train=train,
            exploration=exploration,
            **dict(zip(("key", "forced", "noise"), rows, strict=True)),
        )
        given = jnp.where(first, value, ACTIVATIONS[router.activation](value))
        value, inner = _moved(
            router, params["modules"], value, given, inner, action, active, train
        )
        return (value, active & (action > 0)), inner, None

    active = jnp.ones(batch, bool) if mask is None else mask
    first = jnp.arange(router.depth) == 0
    (x, _), trajectory, _ = scanning.scan(
        once,
        (x, active),
        (first, keys, forced, noise),
        trajectory,
        (router.decision,),
        unroll=router.unroll,
    )
    return x, trajectory, actions


def _moved(
    router: Recursive,
    params: PyTree,
    value: Array,
    given: Array,
    trajectory: Trajectory,
    action: Array,
    active: Array,
    train: bool,
) -> tuple[Array, Trajectory]:
    """Return where the decision's actions take the values.

    If it asks for the weighted sum of all modules, to stop is one of them.
    """
    weights = trajectory.steps[-1].statistics.get("weights")
    moving = active if weights is not None else active & (action > 0)
    found, trajectory, _ = selections.select(
        router.modules,
        params,
        given,
        trajectory,
        jnp.maximum(action - 1, 0),
        mask=moving,
        weights=None if weights is None else weights[-1, :, 1:],
        train=train,
    )
    if found.shape != value.shape:
        outputs, kept = f"outputs {found.shape[1:]}", f"{value.shape[1:]}, as inputs"
        raise UsageError("modules", outputs, kept)
    if weights is not None:
        found = found + weights[-1, :, :1] * value
    return jnp.where(moving[:, None], found, value), trajectory
