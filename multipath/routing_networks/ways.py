"""Ways to send each sample through its module, all with the same results.

A way takes the modules, the samples, the module of each and which of them count, and
returns the outputs (anything for samples that do not count) and the modules' state.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from multipath.routing_networks import grouping
from multipath.routing_networks.grouping import Groups
from shared.model import Model, Variables

_FEW, _FEW_ELSEWHERE = 256, 4096
"""Up to so many applications it does not pay to sort, on a CPU and elsewhere."""


class Modules(NamedTuple):
    """Modules about to be applied.

    Attributes:
        models: one that stands for all, or each.
        variables: `[modules, ...]`, or tuples.
        size: how many.
        train: whether they are training.
        key: for random numbers, or None.
    """

    models: Model | tuple[Model, ...]
    variables: Variables
    size: int
    train: bool
    key: Array | None

    def stacked(self) -> Model:
        """Return the one Model of equal modules."""
        assert isinstance(self.models, Model)
        return self.models

    def keys(self, number: int) -> Array | None:
        """Return random keys for so many calls."""
        return None if self.key is None else jax.random.split(self.key, number)


def gather(modules: Modules, x: Array, action: Array, mask: Array | None):
    """Give each sample the parameters of its module."""
    del mask
    model, keys = modules.stacked(), modules.keys(len(x))
    own = jax.tree.map(lambda leaf: leaf[action], modules.variables)

    def one(variables: Variables, x: Array, key: Array | None) -> Array:
        return model.apply(variables, x[None], train=modules.train, key=key)[0][0]

    return jax.vmap(one)(own, x, keys), modules.variables.state


def dense(modules: Modules, x: Array, action: Array, mask: Array | None):
    """Let every module compute for every sample."""
    del mask
    y, state = every(modules, x)
    index = action.reshape(-1, 1, *(1,) * (y.ndim - 2))
    return jnp.take_along_axis(y, index, 1)[:, 0], state


def every(modules: Modules, x: Array) -> tuple[Array, PyTree]:
    """Return the outputs of all modules, `[batch, modules, ...]`, and their state."""
    models, keys = modules.models, modules.keys(modules.size)
    if isinstance(models, Model):

        def one(variables: Variables, key: Array | None) -> tuple[Array, PyTree]:
            return models.apply(variables, x, train=modules.train, key=key)

        return jax.vmap(one, out_axes=(1, 0))(modules.variables, keys)
    found = [_one(modules, i, x, keys) for i in range(modules.size)]
    return jnp.stack([y for y, _ in found], 1), tuple(state for _, state in found)


def _one(
    modules: Modules, i: int, x: Array, keys: Array | None
) -> tuple[Array, PyTree]:
    """Apply one of different modules."""
    assert not isinstance(modules.models, Model)
    variables = Variables(*(part[i] for part in modules.variables))
    key = None if keys is None else keys[i]
    return modules.models[i].apply(variables, x, train=modules.train, key=key)


def outputs(modules: Modules, x: Array) -> list[jax.ShapeDtypeStruct]:
    """Return shape and type of what each module, or one for all, makes of a batch."""

    def one(model: Model, variables: Variables) -> Array:
        return model.apply(variables, x, train=modules.train, key=modules.key)[0]

    if isinstance(modules.models, Model):
        first = jax.tree.map(lambda leaf: leaf[0], modules.variables)
        return [jax.eval_shape(lambda: one(modules.stacked(), first))]
    each = zip(*modules.variables, strict=True)
    pairs = zip(modules.models, each, strict=True)
    return [jax.eval_shape(lambda: one(m, Variables(*v))) for m, v in pairs]  # noqa: B023


def grouped(modules: Modules, x: Array, action: Array, mask: Array | None):
    """Sort the samples, and let each module compute for its own."""
    groups = grouping.group(action, modules.size, mask)
    if not isinstance(modules.models, Model):
        sizes = [len(x)]
        while sizes[-1] > len(x) / (2 * modules.size) and sizes[-1] > 8:
            sizes.append(-(-sizes[-1] // 2))
        return _own_each(modules, x, groups, sizes[::-1])
    model, (params, state) = modules.models, modules.variables
    rows = grouping.tile_rows(len(x), modules.size)
    keys = modules.keys(grouping.tiles(len(x), modules.size, rows))

    def one(params: PyTree, state: PyTree, key: Array | None, x: Array) -> Array:
        return model.apply(Variables(params, state), x, train=modules.train, key=key)[0]

    y = grouping.apply_in_tiles(one, params, state, x, groups, rows=rows, keys=keys)
    return y, state


def own(modules: Modules, x: Array, action: Array, mask: Array | None):
    """Let each module see its own samples alone, and keep what it learns of them."""
    groups = grouping.group(action, modules.size, mask)
    if not isinstance(modules.models, Model):
        return _own_each(modules, x, groups, [len(x)])
    model = modules.models

    def one(variables: Variables, key: Array | None, k: Array) -> tuple[Array, PyTree]:
        rows = grouping.own_rows(groups, x, k, len(x))
        y, state = model.apply(variables, rows, train=modules.train, key=key)
        return y, _kept(groups.sizes[k] > 0, state, variables.state)

    kinds, keys = jnp.arange(modules.size), modules.keys(modules.size)
    y, state = jax.vmap(one)(modules.variables, keys, kinds)
    return _collect(groups, y), state


def _own_each(modules: Modules, x: Array, groups: Groups, sizes: list[int]):
    """Do so with different modules, each on the smallest batch that holds its samples.

    Args:
        modules: to apply.
        x: samples.
        groups: of them.
        sizes: of batches, rising; the last one holds all samples.
    """
    keys, outputs, states = modules.keys(modules.size), [], []
    for i in range(modules.size):
        state = modules.variables.state[i]

        def run(rows: int, i: int = i, state: PyTree = state) -> tuple[Array, PyTree]:
            y, new = _one(modules, i, grouping.own_rows(groups, x, i, rows), keys)
            missing = [(0, len(x) - rows)] + [(0, 0)] * (y.ndim - 1)
            return jnp.pad(y, missing), _kept(groups.sizes[i] > 0, new, state)

        branches = [lambda rows=rows, run=run: run(rows) for rows in sizes]
        if len(sizes) > 1:
            like = jax.eval_shape(branches[0])[0]
            none = lambda like=like, state=state: (
                jnp.zeros(like.shape, like.dtype),
                state,
            )
            bounds = jnp.asarray([0, *sizes[:-1]], jnp.int32)
            branch = jnp.sum(groups.sizes[i] > bounds)
            y, state = lax.switch(branch, [none, *branches])
        else:
            y, state = branches[0]()
        outputs.append(y)
        states.append(state)
    return _collect(groups, jnp.stack(outputs)), tuple(states)


def _collect(groups: Groups, y: Array) -> Array:
    """Return each sample's row of `[modules, rank, ...]`."""
    return y[jnp.minimum(groups.action, len(y) - 1), groups.rank]


def _kept(used: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda n, o: jnp.where(used, n, o), new, old)


WAYS = {"gather": gather, "grouped": grouped, "dense": dense, "own": own}


def best(modules: int, batch: int, *, equal: bool = True) -> str:
    """Return the way that was measured to be fastest for such sizes.

    Measured on two cores of a CPU with linear modules of 128 inputs and 48 outputs:
    what every module computes for every sample costs nothing to arrange, which pays for
    two modules or few samples; parameters of few samples are quickly gathered;
    otherwise sorting wins. With many cores, assumed and not measured, every module may
    compute for every sample for longer.

    Args:
        modules: how many there are.
        batch: number of samples.
        equal: whether the modules are.
    """
    if equal and modules > 2 and batch <= 2 * modules:
        return "gather"
    most = _FEW if jax.default_backend() == "cpu" else _FEW_ELSEWHERE
    return "dense" if modules <= 2 or modules * batch <= most else "grouped"
