"""The settings of a decision."""

import math
from dataclasses import dataclass

import jax

from multipath.routing_networks.rewards import Reward
from shared.errors import UsageError, check_choice, check_range
from shared.model import Model

STORAGES = ("approximate", "tabular")


@jax.tree_util.register_static
@dataclass(frozen=True)
class Decision:
    """One routing decision: which of some modules each sample goes to.

    Attributes:
        name: of its parameters and its memory; calls under one name share both.
        algorithm: how its agents learn; see `algorithms.ALGORITHMS`.
        actions: number of modules to choose from.
        features: size of the input, or its shape, which is flattened.
        agents: independent policies; the actions that come in say whose turn it is.
        tasks: how many there are to tell apart, for a decision that sees which one a
            sample belongs to beside its features; 0 for one that does not.
        storage: policies as functions of the input, or as tables that ignore it.
        hidden: sizes of the hidden layers of a function.
        detach: whether the decision's gradient stops at its input.
        exploration: probability of a random action, or what makes the temperature.
        reward: for each action.
        temper: whether a given exploration sets the temperature of a policy.
        temperature: fixed, whatever the exploration; None leaves it to the algorithm.
        compat: the formulas of the published program instead of the corrected ones.
        network: in place of the function of `hidden`: the input to scores; it must
            have no state.
        value_network: the same for the second store; that of values for each action is
            `network` if there is none.
        tie_init: whether all agents begin with equal parameters.
        floor, rate, decay: least probability, learning rate and rate of the running
            return of tabular weighted policy learning.
        mode: of Gumbel, whether the gradient comes from the module selected or from
            all.
        history: the decision whose history of actions it shares; None for its own.

    Raises:
        UsageError: for settings out of range or not fitting together.
    """

    name: str
    algorithm: str
    actions: int
    features: int | tuple[int, ...]
    agents: int = 1
    tasks: int = 0
    storage: str = "approximate"
    hidden: tuple[int, ...] = ()
    detach: bool = True
    exploration: float | int = 0.1
    reward: Reward = Reward()
    temper: bool = False
    temperature: float | int | None = None
    compat: bool = False
    network: Model | None = None
    value_network: Model | None = None
    tie_init: bool = False
    floor: float | int = 0.02
    rate: float | int = 0.05
    decay: float | int = 0.05
    mode: str = "selected"
    history: str | None = None

    def __post_init__(self):
        # The algorithms are written in terms of this class.
        from multipath.routing_networks.algorithms import ALGORITHMS

        check_choice("algorithm", self.algorithm, ALGORITHMS)
        check_choice("storage", self.storage, STORAGES)
        check_choice("mode", self.mode, ("selected", "full"))
        check_range("actions", self.actions, low=1)
        check_range("agents", self.agents, low=1)
        check_range("tasks", self.tasks, low=0)
        check_range("exploration", self.exploration, low=0, high=1)
        if self.temperature is not None:
            check_range("temperature", self.temperature, low=0, low_open=True)
        if self.storage == "tabular" and (self.network or self.value_network):
            raise UsageError("storage", self.storage, '"approximate" for a network')
        if self.storage == "tabular" and self.tasks:
            raise UsageError("tasks", self.tasks, "0 for tables, which see nothing")
        for name in ("rate", "decay", "floor"):
            check_range(name, getattr(self, name), low=0)

    @property
    def width(self) -> int:
        """Size of what is seen: features after flattening, and a code of the task."""
        shape = self.features
        return (shape if isinstance(shape, int) else math.prod(shape)) + self.tasks
