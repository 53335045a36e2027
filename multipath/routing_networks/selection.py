"""Selections: each sample goes through the module that was chosen for it.

Modules are `Model`s that map each sample by itself. Equal ones are stacked and applied
in one of three ways with the same outputs and gradients:

- gather: each sample gets the parameters of its module;
- grouped: samples are sorted, each module computes for its own (see `grouping`);
- dense: every module computes for every sample, and one result is kept.

What modules remember (running statistics of batch normalisation) travels in the
trajectory's memory, as `modules` under the selection's name. In training such a module
sees its own samples alone: they fill the rows of the batch in turn, so that its
statistics are theirs; without samples its state stays.

Reference: Rosenbaum, Klinger and Riemer (2018), section 3.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from multipath.routing_networks import ways
from multipath.routing_networks.checks import check_indices, check_lengths
from multipath.routing_networks.trajectory import Trajectory
from multipath.routing_networks.ways import Modules
from shared.errors import UsageError, check_choice, check_range
from shared.layers import linear as layers
from shared.model import Model, Variables

HOW = ("auto", "gather", "grouped", "dense")
MASKED = ("zeros", "identity")


@dataclass(frozen=True)
class Selection:
    """Modules to choose from.

    Attributes:
        modules: one Model of which there are `count` with parameters of their own, or
            several different ones. All outputs have one shape.
        count: number of modules; may be left out where they are listed.
        how: gather, grouped or dense; auto is the fastest that was measured for such
            sizes. Different modules cannot be gathered. Only gather and dense have
            gradients of gradients.
        masked: what becomes of masked samples: zeros, or identity, which needs modules
            that keep the shape.
        name: of its memory, for modules that have a state.

    Raises:
        UsageError: for settings that do not fit together.
    """

    modules: Model | tuple[Model, ...]
    count: int | None = None
    how: str = "auto"
    masked: str = "zeros"
    name: str = ""

    def __post_init__(self):
        check_choice("how", self.how, HOW)
        check_choice("masked", self.masked, MASKED)
        if isinstance(self.modules, Model):
            if self.count is None:
                raise UsageError("count", None, "the number of modules")
            check_range("count", self.count, low=1)
            return
        listed = len(self.modules)
        if not listed or self.count not in (None, listed):
            raise UsageError("modules", f"{listed} modules", f"{self.count or 1}")
        if self.how == "gather":
            allowed = "grouped, dense or auto, since the modules differ"
            raise UsageError("how", self.how, allowed)

    @property
    def size(self) -> int:
        """Number of modules."""
        return self.count or len(self.modules)

    @property
    def stacked(self) -> bool:
        """Whether parameters have a leading axis of modules."""
        return isinstance(self.modules, Model)


def linear_modules(
    count: int, inputs: int, outputs: int, *, bias: bool = True, **options: Any
) -> Selection:
    """Return linear maps to choose from: `kernel` `[count, inputs, outputs]`, `bias`.

    Args:
        count: number of modules.
        inputs, outputs: widths.
        bias: whether there is one.
        options: of `Selection`.
    """
    return Selection(_linear(inputs, outputs, bias), count, **options)


@functools.cache
def _linear(inputs: int, outputs: int, bias: bool) -> Model:
    def init(key: Array) -> Variables:
        dtype = jnp.result_type(float)
        made = layers.init_linear(key, inputs, outputs, bias=bias, dtype=dtype)
        return Variables(made)

    def apply(variables, x, *, train=False, key=None):
        del train, key
        return layers.linear(variables.params, x), variables.state

    return Model(init, apply)


def init(key: Array, selection: Selection) -> Variables:
    """Return parameters, stacked or a tuple, and the selection's part of the memory.

    Raises:
        UsageError: for modules with a state in a selection without a name.
    """
    keys = jax.random.split(key, selection.size)
    if isinstance(selection.modules, Model):
        params, state = jax.vmap(selection.modules.init)(keys)
    else:
        made = [m.init(k) for m, k in zip(selection.modules, keys, strict=True)]
        params, state = tuple(v.params for v in made), tuple(v.state for v in made)
    if not jax.tree.leaves(state):
        return Variables(params, {})
    if not selection.name:
        allowed = "a name for the modules' state to travel under"
        raise UsageError("name", selection.name, allowed)
    return Variables(params, {"modules": state})


def select(
    selection: Selection,
    params: PyTree,
    x: Shaped[Array, "batch ..."],
    trajectory: Trajectory,
    actions: Int[Array, " batch_"] | None,
    *,
    mask: Bool[Array, " batch_"] | None = None,
    weights: Float[Array, "batch_ modules"] | None = None,
    train: bool = False,
    key: Array | None = None,
) -> tuple[Shaped[Array, "batch ..."], Trajectory, Any]:
    """Apply to each sample the module chosen for it.

    Args:
        selection: the modules.
        params: from `init`.
        x: samples.
        trajectory: with the modules' state, if they have one, in its memory.
        actions: module of each sample; returned as they are, for other selections.
        mask: samples to apply modules to; None means all.
        weights: add up all modules by them, whatever the actions. By default those that
            the trajectory's last step recorded, if it did: see `algorithms.gumbel`.
        train: whether modules are training.
        key: for modules that draw random numbers.

    Raises:
        UsageError: for actions out of range, for lengths or output shapes that differ,
            or for parameters of another number of modules.
    """
    own = trajectory.memory.get(selection.name, {})
    if weights is None and trajectory.steps:
        weights = trajectory.steps[-1].statistics.get("weights")
        weights = weights if weights is None else weights[-1]
    variables = Variables(params, own.get("modules", ()))
    y, state = apply(
        selection,
        variables,
        x,
        actions,
        mask=mask,
        weights=weights,
        train=train,
        key=key,
    )
    if train and jax.tree.leaves(state):
        memory = {**trajectory.memory, selection.name: {**own, "modules": state}}
        trajectory = trajectory._replace(memory=memory)
    return y, trajectory, actions


def apply(
    selection: Selection,
    variables: Variables,
    x: Shaped[Array, "batch ..."],
    actions: Int[Array, " batch_"] | None,
    *,
    mask: Bool[Array, " batch_"] | None = None,
    weights: Float[Array, "batch_ modules"] | None = None,
    train: bool = False,
    key: Array | None = None,
) -> tuple[Shaped[Array, "batch ..."], PyTree]:
    """Return the outputs and the modules' new state; see `select`.

    Args:
        selection: the modules.
        variables: parameters of the modules, and their state if they have one.
    """
    if not jax.tree.leaves(variables.state):
        variables = Variables(variables.params, _no_state(selection))
    _check(selection, variables, x, actions, mask, weights)
    modules = Modules(selection.modules, variables, selection.size, train, key)
    _check_outputs(selection, modules, x)
    actions = jnp.clip(actions, 0, selection.size - 1)
    if weights is not None:
        outputs, state = ways.every(modules, x)
        y = jnp.einsum("bk,bk...->b...", weights.astype(outputs.dtype), outputs)
    else:
        way = selection.how
        if way == "auto":
            way = ways.best(selection.size, len(x), equal=selection.stacked)
        if train and jax.tree.leaves(variables.state):
            way = "own"
        y, state = ways.WAYS[way](modules, x, actions, mask)
    if mask is None:
        return y, state
    other = x if selection.masked == "identity" else jnp.zeros_like(y)
    return jnp.where(mask.reshape(-1, *(1,) * (y.ndim - 1)), y, other), state


def _no_state(selection: Selection) -> PyTree:
    """Return the state of modules that have none, which still has a structure.

    Raises:
        UsageError: for modules that do have one.
    """
    listed = selection.modules
    if isinstance(listed, Model):
        listed = (listed,)
    states = tuple(
        jax.eval_shape(model.init, jax.random.key(0)).state for model in listed
    )
    if jax.tree.leaves(states):
        allowed = "the state of the modules, from `init`"
        raise UsageError("memory", "none", allowed)
    return states[0] if selection.stacked else states


def counts(
    actions: Int[Array, "*shape"],
    mask: Bool[Array, "*shape"] | None,
    modules: int,
) -> Int[Array, " modules"]:
    """Return how often each module was used.

    Args:
        actions: any shape, of one step or of several.
        mask: those that were executed; None means all.
        modules: how many there are.
    """
    used = jax.nn.one_hot(actions.reshape(-1), modules, dtype=jnp.int32)
    if mask is not None:
        used = jnp.where(mask.reshape(-1, 1), used, 0)
    return jnp.sum(used, 0)


def _check(
    selection: Selection,
    variables: Variables,
    x: Array,
    actions: Array | None,
    mask: Array | None,
    weights: Array | None,
) -> None:
    """Raise a UsageError for sizes that differ, or an action out of range."""
    sizes = {len(variables.params)}
    if selection.stacked:
        sizes = {(*np.shape(leaf), 0)[0] for leaf in jax.tree.leaves(variables)}
    for size in sizes - {selection.size}:
        raise UsageError("params", f"{size} modules", f"{selection.size}")
    if actions is None:
        raise UsageError("actions", None, "a module for each sample", "Decide first.")
    check_lengths(len(x), actions=actions, mask=mask)
    if weights is not None and weights.shape != (len(x), selection.size):
        allowed = f"shape {(len(x), selection.size)}, a weight for each module"
        raise UsageError("weights", f"shape {weights.shape}", allowed)
    check_indices("actions", actions, selection.size, mask)


def _check_outputs(selection: Selection, modules: Modules, x: Array) -> None:
    """Raise a UsageError for outputs that differ in shape, or cannot stay the input."""
    if modules.size == 1 or isinstance(modules.models, Model):
        if selection.masked == "zeros":
            return
    outputs = [out.shape for out in ways.outputs(modules, x)]
    if len(set(outputs)) > 1:
        given = f"outputs {[shape[1:] for shape in outputs]}"
        raise UsageError("modules", given, "modules whose outputs have one shape")
    if selection.masked == "identity" and outputs[0] != x.shape:
        given = f"outputs {outputs[0][1:]} of inputs {x.shape[1:]}"
        raise UsageError(
            "modules", given, 'modules that keep the shape, for "identity"'
        )
