"""A model is two pure functions over plain pytrees, whatever it was written in."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from shared.errors import UsageError

# Names that modules give the switch between training and evaluation, and whether
# the switch is on in training.
_SWITCHES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
    "inference": False,
}


class Variables(NamedTuple):
    """What a model computes with.

    Attributes:
        params: what an optimiser updates.
        state: what the model itself updates (running statistics); may be empty.
    """

    params: PyTree
    state: PyTree = ()


class Model(NamedTuple):
    """A pair of pure functions.

    Attributes:
        init: `(key) -> Variables`.
        apply: `(variables, x, *, train=False, key=None) -> (outputs, state)`; `key` is
            needed by models that draw random numbers, in training as a rule.
    """

    init: Callable[[Array], Variables]
    apply: Callable[..., tuple[PyTree, PyTree]]


def from_linen(
    module: Any,
    example: PyTree,
    *,
    train_argument: str | None = "auto",
    streams: tuple[str, ...] = ("dropout",),
    unpack: bool = False,
) -> Model:
    """Turn a Flax Linen module into a Model.

    `params` is the collection of that name, `state` a dict of all other collections.
    They change in training and are returned as they came in evaluation. What modules
    `sow` as intermediates is left out.

    Args:
        module: the `flax.linen.Module`.
        example: an input, or `jax.ShapeDtypeStruct`s like one, for shapes.
        train_argument: the argument of the module's `__call__` that switches training
            on (or off: `deterministic`, `use_running_average`, `inference`); "auto"
            sets those among the usual names that it has, None sets none.
        streams: names of the random streams; stream i draws from `fold_in(key, i)`.
        unpack: whether inputs are tuples of positional or dicts of keyword arguments.

    Raises:
        UsageError: if the module has no such argument, and at a call if it draws random
            numbers and there is no key.
    """
    from flax import errors

    switches = _switches(type(module).__call__, train_argument)

    def init(key: Array) -> Variables:
        args, kwargs = _arguments(jax.tree.map(_concrete, example), unpack)
        rngs = _rngs(key, ("params", *streams))
        made = dict(module.init(rngs, *args, **kwargs, **switches(False)))
        params = made.pop("params", {})
        made.pop("intermediates", None)
        return Variables(params, made)

    def apply(
        variables: Variables,
        x: PyTree,
        *,
        train: bool = False,
        key: Array | None = None,
    ) -> tuple[PyTree, PyTree]:
        params, state = variables
        args, kwargs = _arguments(x, unpack)
        mutable = list(state) if train and state else False
        try:
            out = module.apply(
                {"params": params, **state},
                *args,
                **kwargs,
                **switches(train),
                rngs={} if key is None else _rngs(key, streams),
                mutable=mutable,
            )
        except errors.InvalidRngError as error:
            allowed = f"a key and streams that the module names ({error})"
            given = ("no key" if key is None else "a key", streams)
            raise UsageError("key, streams", given, allowed) from error
        if mutable is False:
            return out, state
        outputs, changed = out
        return outputs, {**state, **changed}

    return Model(init, apply)


def from_nnx(
    module: Any, *, train_argument: str | None = "auto", unpack: bool = False
) -> Model:
    """Turn a Flax NNX module, or what constructs one, into a Model.

    `params` holds the values of all `nnx.Param`s, `state` those of all other variables,
    except random streams, which are seeded from `key` at each call: both are
    nested dicts of arrays. Training is switched on and off by the module's own
    `train()` and `eval()`.

    Args:
        module: an `nnx.Module`, whose present values `init` then returns whatever the
            key; or a function `constructor(*, rngs) -> nnx.Module`, such as a class
            or a `functools.partial` of one.
        train_argument: see `from_linen`; beside `train()` and `eval()`.
        unpack: whether inputs are tuples of positional or dicts of keyword arguments.

    Raises:
        UsageError: if the module has no such argument, and at a training call if it
            holds random streams and there is no key.
    """
    from flax import nnx

    if isinstance(module, nnx.Module):
        construct = lambda key: module
        example = module
    elif callable(module):
        construct = lambda key: module(rngs=nnx.Rngs(key))
        example = nnx.eval_shape(lambda: construct(jax.random.key(0)))
    else:
        raise UsageError("module", module, "an nnx.Module or a function that makes one")
    # Sown values exist only after a call, so they can be no part of the state.
    kinds = (nnx.Param, nnx.RngState, nnx.Intermediate, ...)
    graph, *templates = nnx.split(example, *kinds)
    names = sorted({leaf.tag for _, leaf in nnx.to_flat_state(templates[1])})
    switches = _switches(type(example).__call__, train_argument)

    def init(key: Array) -> Variables:
        params, _, _, state = nnx.state(construct(key), *kinds)
        return Variables(nnx.to_pure_dict(params), nnx.to_pure_dict(state))

    def filled(template: Any, values: PyTree) -> Any:
        # The copy keeps the template, which is replaced in place, for the next call.
        copy = jax.tree.map(lambda leaf: leaf, template)
        nnx.replace_by_pure_dict(copy, values)
        return copy

    def apply(
        variables: Variables,
        x: PyTree,
        *,
        train: bool = False,
        key: Array | None = None,
    ) -> tuple[PyTree, PyTree]:
        if train and key is None and names:
            raise UsageError("key", key, f"a random key for the streams {names}")
        args, kwargs = _arguments(x, unpack)
        params, state = (filled(templates[i], variables[i // 2]) for i in (0, 3))
        rngs = jax.tree.map(_concrete, templates[1])
        running: Any = nnx.merge(graph, params, rngs, templates[2], state)
        if key is not None:
            seeds: dict[str, Any] = _rngs(key, tuple(names))
            nnx.reseed(running, policy="match_shape", **seeds)
        running.train() if train else running.eval()
        outputs = running(*args, **kwargs, **switches(train))
        if not train:
            return outputs, variables.state
        return outputs, nnx.to_pure_dict(nnx.state(running, *kinds)[3])

    return Model(init, apply)


def _switches(
    call: Callable[..., Any], argument: str | None
) -> Callable[[bool], dict[str, bool]]:
    """Return the function from `train` to the keyword arguments that switch it."""
    parameters = inspect.signature(call).parameters
    if argument is None:
        names = []
    elif argument == "auto":
        names = [name for name in _SWITCHES if name in parameters]
    else:
        names = [argument]
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if argument not in parameters and not anything:
            allowed = f"one of the module's arguments: {', '.join(parameters)}"
            raise UsageError("train_argument", argument, allowed)
    return lambda train: {n: train == _SWITCHES.get(n, True) for n in names}


def _arguments(x: PyTree, unpack: bool) -> tuple[tuple, dict[str, Any]]:
    """Return positional and keyword arguments for a module's call."""
    if not unpack:
        return (x,), {}
    if isinstance(x, dict):
        return (), x
    if isinstance(x, tuple | list):
        return tuple(x), {}
    raise UsageError("x", type(x).__name__, "a tuple or a dict, since unpack is set")


def _rngs(key: Array, streams: tuple[str, ...]) -> dict[str, Array]:
    return {name: jax.random.fold_in(key, i) for i, name in enumerate(streams)}


def _concrete(leaf: Any) -> Any:
    """Put an array in the place of a description of one."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), leaf.shape)
    return jnp.zeros(leaf.shape, leaf.dtype)
