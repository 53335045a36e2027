"""Many of anything is one more axis: members, their schedules, and sweeps of configs.

A member is one slice of the leading axis of a function's arguments: a seed, a set of
hyper-parameters, a network. `fan_out` runs a function for all members; how it does so
(`vmap`, `map` or `loop`, on one device or many) never changes what is computed.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from shared.config import split
from shared.errors import UsageError, check_choice

Axes = tuple[int | None, ...]
SCHEDULES = ("vmap", "map", "loop")


def has_convolution(fn: Callable[..., Any], *args: Any) -> bool:
    """Tell whether the program of `fn(*args)` holds a convolution, however nested.

    XLA runs gradients of convolutions inside a compiled loop tens of times slower on
    a CPU than outside, so schedules are chosen by this.

    Args:
        fn: a function that JAX can trace.
        args: its arguments, arrays or `jax.ShapeDtypeStruct`s.

    Reference:
        https://github.com/jax-ml/jax/issues/12868
    """
    pending: list[Any] = [jax.make_jaxpr(fn)(*args)]
    while pending:
        for equation in pending.pop().eqns:
            if equation.primitive.name == "conv_general_dilated":
                return True
            pending.extend(jex.jaxprs_in_params(equation.params))
    return False


@jax.jit
def _stack(trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Stack trees of one structure on a new leading axis: K x `[...]` -> `[K, ...]`.

    Raises:
        UsageError: for no tree, or for trees of different structure or shapes.
    """
    if not trees:
        raise UsageError("trees", trees, "at least one tree")
    kinds = [_kind(tree) for tree in trees]
    for kind in kinds[1:]:
        if kind != kinds[0]:
            raise UsageError("trees", kind, f"the same tree as the first, {kinds[0]}")
    return _stack(tuple(trees))


def _kind(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [jnp.shape(leaf) for leaf in leaves]


@jax.jit
def _unstack(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    count = leaves[0].shape[0]
    return [structure.unflatten([leaf[i] for leaf in leaves]) for i in range(count)]


def unstack(tree: PyTree) -> list[PyTree]:
    """Undo `stack`: leaves `[K, ...]` -> K trees, by one compiled function.

    Raises:
        UsageError: if the leaves do not share a leading axis.
    """
    _member_count((tree,), (0,))
    return _unstack(tree)


def fan_out(
    fn: Callable[..., Any],
    *,
    how: str = "auto",
    in_axes: int | None | Sequence[int | None] = 0,
    mesh: Mesh | None = None,
    donate_argnums: int | Sequence[int] = (),
) -> Callable[..., Any]:
    """Make a function of one member into a function of many.

    All schedules compute the same, up to the rounding of reordered sums:

    - `vmap`: one program in which each operation has a member axis;
    - `map`: one program that goes through the members in a compiled loop;
    - `loop`: `fn` itself is called from Python once a member. It may then be any host
      function, which calls compiled steps, say; give a compiled one.
    - `auto`: `vmap` on accelerators. On a CPU `map`, or `loop` if the program holds
      convolutions. Decided at the first call; `fn` must be pure.

    Args:
        fn: function of one member, pure unless `how` is `loop`.
        how: the schedule.
        in_axes: member axis of each argument, the same in all leaves; None gives the
            whole argument to every member. One value stands for all arguments.
        mesh: one-dimensional mesh that shares out the members; a count that its
            devices do not divide is padded with copies of the last member, which are
            cut off again. In `loop` the members take the devices in turn, which work
            at the same time as long as `fn` waits for no result. Arguments without a
            member axis are copied to the devices at each call, unless they are there
            already (`parallel.replicate`).
        donate_argnums: positions of arguments whose memory the result may take, in
            `vmap` and `map`; in `loop` it is for `fn` to donate.

    Returns:
        A function that takes the same arguments with member axes and returns the
        outputs with a leading member axis.

    Raises:
        UsageError: for an unknown schedule, a mesh of several dimensions, and at a
            call for arguments whose member axes are missing or differ in length.
    """
    check_choice("how", how, ("auto", *SCHEDULES))
    if mesh is not None and len(mesh.axis_names) != 1:
        raise UsageError("mesh", mesh, "a mesh of one dimension")
    # Building happens once for each set of axes, so that jit caches survive calls.
    built: dict[Axes, Callable[..., Any]] = {}

    @functools.wraps(fn)
    def mapped(*args: Any) -> Any:
        axes = _axes_of(in_axes, args)
        _member_count(args, axes)
        if any(axes):
            args = _to_front(args, axes)
        axes = tuple(None if axis is None else 0 for axis in axes)
        if axes not in built:
            chosen = _choose(fn, args, axes, mesh) if how == "auto" else how
            if chosen == "loop":
                compiled = how == "loop" or isinstance(fn, jax.stages.Wrapped)
                built[axes] = _looped(fn if compiled else jax.jit(fn), axes, mesh)
            else:
                built[axes] = _compiled(fn, chosen, axes, mesh, donate_argnums)
        return built[axes](*args)

    return mapped


def _axes_of(in_axes: int | None | Sequence[int | None], args: tuple) -> Axes:
    """Return one axis per argument."""
    if in_axes is None or isinstance(in_axes, int):
        return (in_axes,) * len(args)
    if len(in_axes) != len(args):
        raise UsageError("in_axes", in_axes, f"one axis for each of {len(args)} args")
    return tuple(in_axes)


def _member_count(args: tuple, axes: Axes) -> int:
    """Return the length of the member axes, which must agree."""
    counts = set()
    for arg, axis in zip(args, axes, strict=True):
        if axis is None:
            continue
        for leaf in jax.tree.leaves(arg):
            shape = jnp.shape(leaf)
            if not -len(shape) <= axis < len(shape):
                raise UsageError("member axis", axis, f"an axis of the shape {shape}")
            counts.add(shape[axis])
    if len(counts) != 1 or 0 in counts:
        raise UsageError("members", sorted(counts), "one count >= 1 in all leaves")
    return counts.pop()


@functools.partial(jax.jit, static_argnums=1)
def _to_front(args: tuple, axes: Axes) -> tuple:
    def moved(arg: Any, axis: int | None) -> Any:
        if axis is None:
            return arg
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, axis, 0), arg)

    return tuple(moved(arg, axis) for arg, axis in zip(args, axes, strict=True))


def _choose(fn: Callable, args: tuple, axes: Axes, mesh: Mesh | None) -> str:
    """Return the default schedule for this backend and this program."""
    backend = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    if backend != "cpu":
        return "vmap"

    def first(*args: Any) -> Any:
        member = jax.tree.map(lambda leaf: leaf[0], _members(args, axes))
        return _merge(member, args, axes)

    one = jax.eval_shape(first, *args)
    return "loop" if has_convolution(fn, *one) else "map"


def _members(args: tuple, axes: Axes) -> tuple:
    """Return the arguments that have a member axis."""
    return tuple(a for a, axis in zip(args, axes, strict=True) if axis is not None)


def _merge(member: tuple, args: tuple, axes: Axes) -> tuple:
    """Undo `_members`: put one member's arguments back among the others."""
    own = iter(member)
    pairs = zip(args, axes, strict=True)
    return tuple(arg if axis is None else next(own) for arg, axis in pairs)


def _compiled(
    fn: Callable, how: str, axes: Axes, mesh: Mesh | None, donate: int | Sequence[int]
) -> Callable[..., Any]:
    """Build `vmap` or `map` over members, sharded if there is a mesh."""

    def block(*args: Any) -> Any:
        if how == "vmap":
            return jax.vmap(fn, in_axes=axes)(*args)
        one = lambda member: fn(*_merge(member, args, axes))
        return jax.lax.map(one, _members(args, axes))

    if mesh is None:
        return jax.jit(block, donate_argnums=donate)
    (name,) = mesh.axis_names
    # Members are independent, so values need no tracking of where they vary.
    mesh = Mesh(mesh.devices, mesh.axis_names)
    specs = tuple(P() if axis is None else P(name) for axis in axes)
    shard = jax.shard_map(
        block, mesh=mesh, in_specs=specs, out_specs=P(name), check_vma=False
    )
    shard = jax.jit(shard, donate_argnums=donate)

    def run(*args: Any) -> Any:
        count = _member_count(args, axes)
        extra = -count % mesh.size
        if extra:
            args = _merge(_pad(_members(args, axes), extra), args, axes)
        shardings = tuple(NamedSharding(mesh, spec) for spec in specs)
        out = shard(*map(jax.device_put, args, shardings))
        return _cut(out, count) if extra else out

    return run


@functools.partial(jax.jit, static_argnums=1)
def _pad(tree: Any, extra: int) -> Any:
    return jax.tree.map(lambda x: jnp.concatenate([x] + [x[-1:]] * extra), tree)


@functools.partial(jax.jit, static_argnums=1)
def _cut(tree: Any, count: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[:count], tree)


def _looped(fn: Callable, axes: Axes, mesh: Mesh | None) -> Callable[..., Any]:
    """Build the Python loop over members, which take the mesh's devices in turn."""
    devices = [None] if mesh is None else list(mesh.devices.flat)

    def run(*args: Any) -> Any:
        members = _unstack(_members(args, axes))
        used = devices[: len(members)]
        rest = tuple(
            None if axis == 0 else arg for arg, axis in zip(args, axes, strict=True)
        )
        common = [_place(rest, device) for device in used]
        results = []
        for i, member in enumerate(members):
            turn = i % len(used)
            own = _place(member, used[turn])
            results.append(fn(*_merge(own, common[turn], axes)))
        return stack(_place(results, used[0]))

    return run


def _place(tree: Any, device: Any) -> Any:
    """Move the arrays of a tree to a device; numbers stay on the host."""
    if device is None:
        return tree
    put = lambda x: jax.device_put(x, device) if isinstance(x, jax.Array) else x
    return jax.tree.map(put, tree)


class Group(NamedTuple):
    """Configs that share one compiled program.

    Attributes:
        static: their common static part.
        indices: their places among all configs.
        hyper: their traced values, a dict of arrays `[members]`.
    """

    static: Any
    indices: tuple[int, ...]
    hyper: dict[str, Array]


def group(configs: Sequence[Any]) -> list[Group]:
    """Group configs by their static part, in the order of first appearance."""
    found: dict[Any, list[tuple[int, dict[str, Array]]]] = {}
    for index, config in enumerate(configs):
        static, hyper = split(config)
        found.setdefault(static, []).append((index, hyper))
    return [
        Group(static, tuple(i for i, _ in members), stack([h for _, h in members]))
        for static, members in found.items()
    ]


def grid(config: Any, **values: Any) -> tuple[Any, ...]:
    """Return a config for each combination of values, the last field fastest.

    Args:
        config: frozen dataclass that gives all other fields.
        values: a list of values to try, by field name.

    Raises:
        UsageError: for an unknown field, or values that are not a list.
    """
    fields = [field.name for field in dataclasses.fields(config)]
    for name, tried in values.items():
        check_choice("field", name, fields)
        if isinstance(tried, str) or not isinstance(tried, Sequence):
            raise UsageError(name, tried, "a list of values")
    return tuple(
        dataclasses.replace(config, **dict(zip(values, choice, strict=True)))
        for choice in itertools.product(*values.values())
    )
