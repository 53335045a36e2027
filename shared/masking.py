"""Masks over the single weights of any model.

A tree of masks (or of their logits) has the structure of the parameters that it masks,
with None where a parameter, or a whole branch, has no mask. A mask has the shape of its
parameter, or 1 along axes where all weights share one value. A leading axis
counts masks where a function says so.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, PyTree

from shared.errors import UsageError, check_choice, check_range
from shared.model import Model, Variables

Filter = Callable[[str, Any], bool]


def init_logits(
    params: PyTree, where: Filter | None = None, value: float | int = 2.0
) -> PyTree:
    """Return logits for the parameters that a filter chooses.

    Args:
        params: any tree.
        where: `(path, leaf) -> bool`, with paths like "layers/0/kernel"; by default
            every parameter of a floating type has a mask.
        value: of all logits: a weight is kept with probability σ(value).

    Raises:
        UsageError: if nothing is chosen, or a parameter that is not of floating type.
    """

    def logits(path: Any, leaf: Array) -> Array | None:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        if not (floating if where is None else where(name, leaf)):
            return None
        if not floating:
            raise UsageError(f"where({name!r})", True, "a parameter of floating type")
        return jnp.full(leaf.shape, value, leaf.dtype)

    chosen = jax.tree_util.tree_map_with_path(logits, params)
    if not jax.tree.leaves(chosen):
        raise UsageError("where", where, "a filter that chooses at least one parameter")
    return chosen


@jax.custom_jvp
def _step(z: Array) -> Array:
    """Return 1 where z > 0, else 0, with the gradient of σ(z)."""
    return (z > 0).astype(z.dtype)


@_step.defjvp
def _step_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    s = jax.nn.sigmoid(z)
    return _step(z), dz * s * (1 - s)


def logistic_noise(uniform: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return standard logistic noise log u - log(1 - u) from uniform draws."""
    return jnp.log(uniform) - jnp.log1p(-uniform)


def gumbel_noise(uniform: Float[Array, "2 ..."]) -> Float[Array, "..."]:
    """Return logistic noise as a difference of two Gumbel draws, to replay a program.

    -log(log(u₁ + ε) / log(u₀ + ε) + ε), ε = 1e-10.
    """
    first, second = jnp.log(uniform + 1e-10)
    return -jnp.log(second / first + 1e-10)


def gumbel_sigmoid(
    logits: Float[Array, "..."],
    noise: Float[Array, "..."],
    *,
    tau: float | int | Float[Array, ""] = 1.0,
    hard: bool = True,
) -> Float[Array, "..."]:
    """Sample masks: s = σ((logits + noise) / tau), or 1[s > 1/2] if hard.

    Hard samples are exactly 0 or 1. The gradient is that of s in both cases:
    s (1 - s) / tau.

    Args:
        logits: `[*shape]`.
        noise: logistic, `[*shape]` or `[n, *shape]` for n samples.
        tau: temperature.
        hard: whether to round.

    Reference:
        Jang et al. (2017); Maddison et al. (2017); straight-through, Bengio et al.
        (2013).
    """
    z = (jnp.broadcast_to(logits, noise.shape) + noise) / tau
    return _step(z) if hard else jax.nn.sigmoid(z)


def sample(
    logits: PyTree,
    n: int | None = None,
    *,
    key: Array | None = None,
    uniform: PyTree | None = None,
    tau: float | int | Float[Array, ""] = 1.0,
    hard: bool = True,
) -> PyTree:
    """Draw masks: each weight is kept with probability σ(logit).

    Args:
        logits: tree with None where there is no mask.
        n: number of samples, the leading axis of the result; None for one sample
            without that axis.
        key: source of noise; consumed.
        uniform: the noise instead: a tree like `logits` of uniform draws from (0, 1),
            `[n, *shape]`, or `[2, n, *shape]` for `gumbel_noise`.
        tau, hard: see `gumbel_sigmoid`.

    Raises:
        UsageError: without noise or with two sources of it, for noise of another
            structure or shape, and for n < 1 or tau <= 0.
    """
    if (key is None) == (uniform is None):
        given = "neither" if key is None else "both"
        raise UsageError("key, uniform", given, "one of them")
    if n is not None:
        check_range("n", n, low=1)
    if not isinstance(tau, jax.Array):
        check_range("tau", tau, low=0, low_open=True)
    lead = () if n is None else (n,)
    leaves, structure = jax.tree.flatten(logits)
    if key is not None:
        # A draw of 0 would make the noise infinite.
        draw = lambda i, leaf: jax.random.uniform(
            jax.random.fold_in(key, i),
            (*lead, *leaf.shape),
            leaf.dtype,
            minval=jnp.finfo(leaf.dtype).tiny,
        )
        noises = [logistic_noise(draw(i, leaf)) for i, leaf in enumerate(leaves)]
    else:
        if jax.tree.structure(uniform) != structure:
            given = jax.tree.structure(uniform)
            raise UsageError("uniform", given, f"the structure of logits, {structure}")
        draws = jax.tree.leaves(uniform)
        pairs = zip(draws, leaves, strict=True)
        noises = [_given_noise(u, (*lead, *leaf.shape)) for u, leaf in pairs]
    masks = [
        gumbel_sigmoid(leaf, noise, tau=tau, hard=hard)
        for leaf, noise in zip(leaves, noises, strict=True)
    ]
    return jax.tree.unflatten(structure, masks)


def _given_noise(uniform: Array, shape: tuple[int, ...]) -> Array:
    if uniform.shape == shape:
        return logistic_noise(uniform)
    if uniform.shape == (2, *shape):
        return gumbel_noise(uniform)
    raise UsageError("uniform", uniform.shape, f"the shape {shape} or {(2, *shape)}")


def threshold(logits: PyTree, *, inclusive: bool = False) -> PyTree:
    """Return the masks without chance: keep where logit > 0 (>= 0 if `inclusive`)."""
    keep = (lambda leaf: leaf >= 0) if inclusive else (lambda leaf: leaf > 0)
    return jax.tree.map(keep, logits)


def invert(masks: PyTree) -> PyTree:
    """Return boolean masks that keep what these remove."""
    return jax.tree.map(lambda mask: ~_bool(mask), masks)


def union(a: PyTree, b: PyTree) -> PyTree:
    """Return what either keeps; a parameter that one masks has the mask of that one."""
    return _pairwise(lambda x, y: _either(x, y, jnp.logical_or), a, b)


def intersection(a: PyTree, b: PyTree) -> PyTree:
    """Return what both keep, for parameters that both mask; None for others."""
    both = lambda x, y: (
        None if x is None or y is None else jnp.logical_and(_bool(x), _bool(y))
    )
    return _pairwise(both, a, b)


def count(masks: PyTree) -> PyTree:
    """Count the weights that each mask keeps: a tree of numbers."""
    return jax.tree.map(lambda mask: jnp.sum(_bool(mask)), masks)


def total(counts: PyTree) -> Array:
    """Add up a tree of numbers."""
    return jax.tree.reduce(jnp.add, counts, jnp.zeros((), jnp.int32))


def iou(a: PyTree, b: PyTree) -> tuple[PyTree, Array]:
    """Return |a ∩ b| / |a ∪ b| for each parameter that both mask, and for all together.

    Nothing kept by either gives 0.
    """
    shared = count(intersection(a, b))
    either = count(_common(union(a, b), shared))
    return _ratios(shared, either)


def iomin(a: PyTree, b: PyTree) -> tuple[PyTree, Array]:
    """Return |a ∩ b| / min(|a|, |b|), how far one is a subset, as `iou` does.

    For all together, the smaller counts of all parameters are added up.
    """
    shared = count(intersection(a, b))
    sizes = count(_common(a, shared)), count(_common(b, shared))
    return _ratios(shared, jax.tree.map(jnp.minimum, *sizes))


def remaining(masks: PyTree, reference: PyTree) -> tuple[PyTree, Array]:
    """Return the share |mask ∩ reference| / |reference|, as `iou` does."""
    kept = count(intersection(masks, reference))
    return _ratios(kept, count(_common(reference, kept)))


def sharing(masks: PyTree, others: list[PyTree]) -> tuple[PyTree, Array]:
    """Return the share of a mask that any of the others keep too, as `iou` does."""
    if not others:
        raise UsageError("others", others, "at least one tree of masks")
    rest = others[0]
    for other in others[1:]:
        rest = union(rest, other)
    shared = count(intersection(masks, rest))
    return _ratios(shared, count(_common(masks, shared)))


def _ratios(parts: PyTree, wholes: PyTree) -> tuple[PyTree, Array]:
    share = lambda part, whole: part / jnp.maximum(whole, 1)
    return jax.tree.map(share, parts, wholes), share(total(parts), total(wholes))


def _bool(mask: Array) -> Array:
    return mask.astype(bool)


def _either(x: Any, y: Any, combine: Callable[[Array, Array], Array]) -> Any:
    if x is None or y is None:
        return y if x is None else x
    return combine(_bool(x), _bool(y))


def _pairwise(fn: Callable[[Any, Any], Any], a: PyTree, b: PyTree) -> PyTree:
    """Map over two trees of masks, with None as a leaf."""
    none = lambda leaf: leaf is None
    try:
        return jax.tree.map(fn, a, b, is_leaf=none)
    except ValueError as error:
        raise UsageError("masks", str(error), "two trees of one structure") from error


def _common(masks: PyTree, like: PyTree) -> PyTree:
    """Leave out what has no value in the other tree."""
    return _pairwise(lambda m, other: None if other is None else m, masks, like)


def linear_penalty(logits: PyTree, scales: PyTree | None = None) -> Float[Array, ""]:
    """Return Σ_p s_p Σ_j l_pj: each logit is pushed down with constant force.

    Args:
        logits: tree with None where there is no mask.
        scales: s_p, a tree of numbers like `logits`; 1 by default.
    """
    sums = jax.tree.map(jnp.sum, logits)
    if scales is not None:
        sums = jax.tree.map(jnp.multiply, sums, scales)
    return jax.tree.reduce(jnp.add, sums)


def apply_masks(params: PyTree, masks: PyTree) -> PyTree:
    """Multiply parameters by masks; those without one stay as they are.

    Raises:
        UsageError: for masks of another structure or shape than the parameters.
    """
    _check_masks(params, masks, None)
    return _masked(params, masks)


def _masked(params: PyTree, masks: PyTree) -> PyTree:
    multiply = lambda m, p: p if m is None else p * m.astype(p.dtype)
    return jax.tree.map(multiply, masks, params, is_leaf=lambda leaf: leaf is None)


def _check_masks(params: PyTree, masks: PyTree, groups: int | None) -> None:
    """Refuse masks that do not fit; with `groups`, all have that leading axis."""

    def check(path: Any, mask: Any, param: Any) -> None:
        if mask is None:
            return
        name = f"masks[{jax.tree_util.keystr(path, simple=True, separator='/')}]"
        if not isinstance(param, jax.Array):
            raise UsageError(name, "a mask", "None, for there is no such parameter")
        full = param.shape if groups is None else (groups, *param.shape)
        own = jnp.shape(mask)
        fits = [size in (1, whole) for size, whole in zip(own, full, strict=False)]
        if len(own) != len(full) or not all(fits) or own[:1] != full[:1] and groups:
            raise UsageError(name, own, f"the shape {full}, or 1 for a shared axis")

    none = lambda leaf: leaf is None
    try:
        jax.tree_util.tree_map_with_path(check, masks, params, is_leaf=none)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError("masks", str(error), "the structure of params") from error


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
    _check_masks(variables.params, masks, groups)
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
