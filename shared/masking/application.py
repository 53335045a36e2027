"""Masked networks: as ordinary parameters, and many of them over one batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from shared.errors import UsageError, check_choice
from shared.masking.logits import check_masks, expand, stretch
from shared.model import Model, Variables


def apply_masks(params: PyTree, masks: PyTree) -> PyTree:
    """Multiply parameters by masks; those without one stay as they are.

    Raises:
        UsageError: for masks of another structure or shape than the parameters.
    """
    check_masks(params, masks, None)
    return _masked(params, masks)


def export(params: PyTree, masks: PyTree) -> PyTree:
    """Return ordinary parameters of the masked network, in which removed ones are 0.

    Args:
        params: any tree.
        masks: of booleans, or of numbers that are all 0 or 1.

    Raises:
        UsageError: for masks of another structure or shape than the parameters.
    """
    keep = lambda m, p: p if m is None else jnp.where(m.astype(bool), p, 0)
    none = lambda leaf: leaf is None
    return jax.tree.map(keep, expand(masks, params), params, is_leaf=none)


def _masked(params: PyTree, masks: PyTree) -> PyTree:
    def multiply(mask: Any, param: Any) -> Any:
        if mask is None:
            return param
        return param * stretch(mask, param.shape).astype(param.dtype)

    return jax.tree.map(multiply, masks, params, is_leaf=lambda leaf: leaf is None)


def batched_apply(
    model: Model,
    variables: Variables,
    masks: PyTree,
    x: PyTree,
    *,
    batch_axis: int = 0,
    train: bool = False,
    key: Array | None = None,
    norm_axis: str = "mask",
    how: str = "auto",
    mesh: Mesh | None = None,
) -> tuple[PyTree, PyTree]:
    """Apply a model to a batch, of which K contiguous groups see K masked copies.

    Group k of B / K examples is given the weights `params * masks[k]`. All schedules
    compute the same: "vmap" does all groups in one batched program, "loop" one after
    the other, "shard" some on each device. To be called in a compiled function.

    In training, a model with state is computed by all groups together: what it pools
    over the mapped axis `norm_axis` (our batch norm, or a Flax one, built with that
    `axis_name`) is pooled over the whole batch. A loop cannot do that.

    Args:
        model: any Model.
        variables: its parameters, without a mask axis, and state.
        masks: `[K, *shape]` for each masked parameter.
        x: tree of arrays.
        batch_axis: where examples lie, in all leaves of x and of the outputs.
        train: passed on to the model.
        key: split into one key for each group.
        norm_axis: name of the mapped axis.
        how: "vmap", "loop", "shard" or "auto": vmap, but on a CPU loop for a model with
            convolutions wherever that is possible.
        mesh: one-dimensional, for "shard"; by default over all devices.

    Returns:
        The outputs in the order of the batch, and the state: unchanged unless `train`.

    Raises:
        UsageError: for masks that do not fit the parameters or differ in K, a batch
            that K does not divide, a model whose state in training would differ from
            group to group, or a loop over groups that must be computed together.
    """
    check_choice("how", how, ("auto", "vmap", "loop", "shard"))
    groups = _group_count(masks)
    check_masks(variables.params, masks, groups)
    parts = _split(x, groups, batch_axis)
    keys = None if key is None else jax.random.split(key, groups)
    together = train and bool(jax.tree.leaves(variables.state))

    def one(mask: PyTree, part: PyTree, key: Array | None, own: Variables) -> tuple:
        masked = own._replace(params=_masked(own.params, mask))
        outputs, state = model.apply(masked, part, train=train, key=key)
        return outputs, state if together else ()

    args, axes = (masks, parts, keys, variables), (0, 0, 0, None)
    if how == "loop" and together:
        allowed = "vmap or shard, for the groups of a model with state in training"
        raise UsageError("how", how, allowed)
    if together:
        if how == "shard":
            args = (*_spread(args[:3], groups, mesh), variables)
        outputs, state = _together(one, args, axes, norm_axis)
    else:
        outputs, _ = _apart(one, args, axes, norm_axis, how, groups, mesh)
        state = variables.state
    return _merge(outputs, batch_axis), state


def _group_count(masks: PyTree) -> int:
    counts = {jnp.shape(mask)[:1] for mask in jax.tree.leaves(masks)}
    if len(counts) != 1 or counts == {()}:
        given = sorted(counts)
        raise UsageError("masks", given, "masks with one leading axis [K, ...]")
    return counts.pop()[0]


def _split(x: PyTree, groups: int, axis: int) -> PyTree:
    """Cut the batch axis into groups, on a new leading axis."""

    def cut(leaf: Array) -> Array:
        shape = jnp.shape(leaf)
        if not -len(shape) <= axis < len(shape):
            raise UsageError("batch_axis", axis, f"an axis of the shape {shape}")
        at = axis % len(shape)
        if shape[at] % groups:
            raise UsageError("batch", shape[at], f"a multiple of the {groups} masks")
        new = (*shape[:at], groups, shape[at] // groups, *shape[at + 1 :])
        return jnp.moveaxis(jnp.reshape(leaf, new), at, 0)

    return jax.tree.map(cut, x)


def _merge(outputs: PyTree, axis: int) -> PyTree:
    """Undo `_split`."""

    def join(leaf: Array) -> Array:
        if not -leaf.ndim < axis < leaf.ndim - 1:
            allowed = f"outputs with batch axis {axis}, not of the shape"
            raise UsageError("batch_axis", axis, f"{allowed} {leaf.shape[1:]}")
        at = axis % (leaf.ndim - 1)
        leaf = jnp.moveaxis(leaf, 0, at)
        shape = leaf.shape
        return leaf.reshape(*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])

    return jax.tree.map(join, outputs)


def _together(
    one: Callable, args: tuple, axes: tuple, norm_axis: str
) -> tuple[PyTree, PyTree]:
    """Compute all groups in one program, whose state must come out the same for all."""
    mapped = lambda out_axes: jax.vmap(one, axes, out_axes, axis_name=norm_axis)
    # What fails here is the model's own affair; what fails only below is the state.
    jax.eval_shape(mapped(0), *args)
    try:
        return mapped((0, None))(*args)
    except ValueError as error:
        allowed = f"one that pools its batch statistics over axis_name={norm_axis!r}"
        hint = "Its state would differ between groups; or apply it with train=False."
        raise UsageError("model", "state per group", allowed, hint) from error


def _apart(
    one: Callable,
    args: tuple,
    axes: tuple,
    norm_axis: str,
    how: str,
    groups: int,
    mesh: Mesh | None,
) -> tuple[PyTree, PyTree]:
    """Compute groups that need nothing of each other."""
    from shared.sweep import fan_out, has_convolution

    mapped = jax.vmap(one, axes, axis_name=norm_axis)
    if how == "auto":
        cpu = jax.default_backend() == "cpu"
        shapes = jax.eval_shape(lambda *a: a, *args)
        how = "loop" if cpu and has_convolution(mapped, *shapes) else "vmap"
    if how == "vmap":
        return mapped(*args)
    if how == "shard":
        run = fan_out(one, how="vmap", in_axes=axes, mesh=mesh or _mesh(groups))
    else:
        run = fan_out(one, how="loop", in_axes=axes)
    try:
        return run(*args)
    except NameError as error:
        raise UsageError(
            "how", how, f"vmap, for a model with an axis: {error}"
        ) from error


def _mesh(groups: int) -> Mesh:
    """Return a mesh of as many devices as share the groups equally."""
    devices = jax.devices()
    size = max(d for d in range(1, len(devices) + 1) if groups % d == 0)
    return Mesh(devices[:size], ("group",))


def _spread(trees: tuple, groups: int, mesh: Mesh | None) -> tuple:
    """Ask the compiler to lay leading axes out over the devices."""
    mesh = mesh or _mesh(groups)
    if len(mesh.axis_names) != 1 or groups % mesh.size:
        allowed = f"one axis, of a number of devices that divides {groups}"
        raise UsageError("mesh", dict(mesh.shape), allowed)
    # Built anew since only axes of the default kind, "auto", may be named here.
    place = NamedSharding(Mesh(mesh.devices, mesh.axis_names), P(*mesh.axis_names))
    return jax.lax.with_sharding_constraint(trees, place)
