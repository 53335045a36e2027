"""Target propagation in its variants: errors sent down through inverse layers.

Each rule moves activities h a little towards their targets t and lets the inverse layer
turn the moved activities into targets for the layer below. The rules differ in how far
they move; `Nudge` says it. Scales s_L = 1, s_{l-1} = scale(s_l, ...); a layer's error
is `eps_l = (h_l - t_l) / s_l`.

Two forms compute the same numbers. The published one subtracts, propagates targets and
scales distances up again, which magnifies rounding errors by 1 / s: in float64 it fails
beyond about three hidden layers, in float32 beyond one. The difference form propagates
eps itself,

    p = f'^2 eps_l,  q = (g(h_l) - g(h_l - s_{l-1} p)) / s_{l-1},  eps_{l-1} = q W_l^-1

with q evaluated without cancellation (`transfer.difference`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax import numpy as jnp
from jaxtyping import Array, Float

from gaitprop import layers, networks, transfer
from gaitprop.inverse import SOLVERS
from gaitprop.networks import Activities, Params
from gaitprop.optimizer import make_optimizer
from shared.errors import UsageError, check_choice

FORMS = ("difference", "subtract")
INVERSES = ("exact", "learned", "learned_random")
TOLERANCE = 1e-5
"""Relative residual of `refine` unless `hyper` holds a `tolerance`."""

Result = tuple[tuple[Array, ...], Any, dict[str, Array]]


class Nudge(NamedTuple):
    """How far a rule moves activities towards their targets.

    Attributes:
        squared: whether the move carries the squared derivative.
        scale: `(s_l, eps_l, gamma) -> s_{l-1}`, the scale of the errors below.
    """

    squared: bool
    scale: Callable[[Array, Array, Array], Array]


def shrink(scale, eps, gamma):
    """Scale by gamma at each layer."""
    del eps
    return gamma * scale


def keep(scale, eps, gamma):
    """Move all the way at each layer."""
    del eps, gamma
    return scale


def fixed_length(scale, eps, gamma):
    """Move each sample by `gamma sqrt(n_l)`, whatever its error."""
    del scale
    length = jnp.linalg.norm(eps, axis=1, keepdims=True)
    return gamma * eps.shape[1] ** 0.5 / jnp.where(length > 0, length, 1)


class _Inverses(NamedTuple):
    """The inverse layers of one step; layers are counted from 0.

    Attributes:
        slopes: of the transfer functions.
        solve: `(i, q) -> (q W_i^-1, memory, info)`.
        bias: `i -> [1, n]`, the bias of the way back.
    """

    slopes: tuple[float, ...]
    solve: Callable[[int, Array], tuple[Array, Any, dict[str, Array]]]
    bias: Callable[[int], Array]


def _exact_inverses(params, memories, hyper, config) -> _Inverses:
    solver = SOLVERS[config.solver]
    tools = solver.prepare([layer["kernel"] for layer in params[1:]])
    tolerance = hyper.get("tolerance", TOLERANCE)

    def solve(i, q):
        memory, tool = memories[i - 1], tools[i - 1]
        rows = _class_rows(i, q, len(params), config)
        if rows is None:
            return solver.solve(params[i], tool, memory, q, tolerance)
        # The output error lies in the class units: the same few rows of the inverse
        # serve the whole batch. Their residual bounds that of the batch.
        share = rows.shape[0] ** -0.5
        x, memory, info = solver.solve(params[i], tool, memory, rows, share * tolerance)
        if "residual" in info:
            info = {**info, "residual": info["residual"] / share}
        return q[:, : rows.shape[0]] @ x, memory, info

    return _Inverses(networks.slopes(config), solve, lambda i: params[i]["bias"][None])


def _class_rows(i, q, depth, config):
    """Return the first unit rows if q is nonzero in their columns only, else None."""
    top, classes = i == depth - 1, config.classes
    if not top or config.form != "difference" or classes >= min(q.shape):
        return None
    return jnp.eye(classes, q.shape[1], dtype=q.dtype)


def _learned_inverses(state, config) -> _Inverses:
    def solve(i, q):
        return q @ state["layers"][i - 1]["kernel"], (), {}

    def bias(i):
        return state["layers"][i - 1]["bias"][None]

    return _Inverses(networks.slopes(config), solve, bias)


def propagate(
    nudge: Nudge,
    params: Params,
    rule_state: Any,
    activities: Activities,
    target: Float[Array, "batch units"],
    hyper: dict[str, Array],
    config: Any,
) -> Result:
    """Send the output error down through inverse layers.

    Args:
        nudge: what distinguishes the rule.
        params: layers; an entry `gram` beside kernel and bias is used where it helps.
        rule_state: what the solver remembers of layers 2..L, or the learned inverses.
        activities: h_0..h_L.
        target: t_L, equal to h_L in auxiliary units.
        hyper: `gamma`, and `tolerance` of the solver.
        config: `form`, `inverse`, `solver`, `gamma == 0` for the limit.

    Returns:
        The errors; the new rule state; and `sign_changes`, the share of each layer's
        units that the nudge moves across zero, with the solver's own figures for
        layers 2..L where it reports any.
    """
    check_choice("form", config.form, FORMS)
    check_choice("inverse", config.inverse, INVERSES)
    limit = config.gamma == 0 and nudge.scale is not keep
    if limit and config.form == "subtract":
        raise UsageError("gamma", 0, "> 0 with form subtract")
    learned = config.inverse != "exact"
    if learned:
        inverses = _learned_inverses(rule_state, config)
    else:
        inverses = _exact_inverses(params, rule_state, hyper, config)
    send = _subtract if config.form == "subtract" else _difference
    gamma = None if limit else hyper["gamma"]
    errors, scales, solved = send(nudge, gamma, inverses, activities, target)
    memories, infos = zip(*solved, strict=True) if solved else ((), ())
    changes = _sign_changes(nudge, errors, activities, scales, inverses.slopes)
    info = jax.tree.map(lambda *v: jnp.stack(v), *infos) if infos else {}
    if learned:
        rule_state = learn(rule_state, activities, hyper, config)
    else:
        rule_state = tuple(memories)
    return errors, rule_state, {"sign_changes": changes, **info}


def _difference(nudge, gamma, inverses, activities, target):
    """Pass scaled errors down; gamma None takes the limit of vanishing moves."""
    eps, scale = activities[-1] - target, jnp.ones((), target.dtype)
    errors, scales, solved = [eps], [], []
    for i in reversed(range(len(activities) - 1)):
        h, below, slope = activities[i + 1], activities[i], inverses.slopes[i]
        scale = None if gamma is None else nudge.scale(scale, eps, gamma)
        scales.insert(0, scale)
        if i == 0:
            break
        q = transfer.difference(h, _move(nudge, h, eps, slope), scale, slope)
        x, memory, info = inverses.solve(i, q)
        eps = networks.extend(x, jnp.zeros_like(below[:, x.shape[1] :]))
        errors.insert(0, eps)
        solved.insert(0, (memory, info))
    return tuple(errors), scales, solved


def _subtract(nudge, gamma, inverses, activities, target):
    """Pass targets down and scale their distances up again, as published."""
    scale = jnp.ones((), target.dtype)
    errors, scales, solved = [], [], []
    for i in reversed(range(len(activities) - 1)):
        h, below, slope = activities[i + 1], activities[i], inverses.slopes[i]
        eps, above = (h - target) / scale, scale
        errors.insert(0, eps)
        scale = nudge.scale(scale, eps, gamma)
        scales.insert(0, scale)
        if i == 0:
            break
        share = jnp.broadcast_to(scale / above, h.shape)
        share = _move(nudge, h, share, slope)
        moved = (1 - share) * h + share * target
        q = transfer.inverse(moved, slope) - inverses.bias(i)
        x, memory, info = inverses.solve(i, q)
        target = networks.extend(x, below[:, x.shape[1] :])
        solved.insert(0, (memory, info))
    return tuple(errors), scales, solved


def _move(nudge, h, eps, slope):
    """Return `eps`, times the squared derivative if the rule has it."""
    if not nudge.squared or slope == 1:
        return eps
    return jnp.where(h >= 0, eps, slope * slope * eps)


def _sign_changes(nudge, errors, activities, scales, slopes):
    shares = []
    for eps, h, scale, slope in zip(
        errors, activities[1:], scales, slopes, strict=True
    ):
        if scale is None or slope == 1:
            shares.append(jnp.zeros((), eps.dtype))
            continue
        crossed = transfer.crossings(h, _move(nudge, h, eps, slope), scale)
        shares.append(jnp.mean(crossed, dtype=eps.dtype))
    return jnp.stack(shares)


def learn(state: Any, activities: Activities, hyper: Any, config: Any) -> Any:
    """Train the learned inverses by one step.

    `x ~ (g(h_l) - c_l) V_l` for layers 2..L, on half the squared error, with the
    optimiser and the learning rate of the network.

    Args:
        state: `layers` (V as kernel, c as bias) and `opt_state`.
        activities: h_0..h_L.
        hyper, config: as of the network.
    """
    slopes, grads = networks.slopes(config), []
    for i, layer in enumerate(state["layers"], start=1):
        kernel, bias = layer["kernel"], layer["bias"]
        z = transfer.inverse(activities[i + 1], slopes[i]) - bias[None]
        rest = (z @ kernel - layers.read(activities[i], kernel.shape[1])) / len(z)
        grads.append({"kernel": z.T @ rest, "bias": -(rest @ kernel.T).sum(axis=0)})
    optimizer = make_optimizer(config.optimizer)(hyper)
    steps, opt_state = optimizer.update(
        tuple(grads), state["opt_state"], state["layers"]
    )
    learned = optax.apply_updates(state["layers"], steps)
    return {"layers": learned, "opt_state": opt_state}


def init_state(key: Array, params: Params, config: Any, hyper: Any) -> Any:
    """Start what the solver remembers, or the learned inverses.

    Learned inverses start at the exact ones, or random with `learned_random`.
    """
    check_choice("inverse", config.inverse, INVERSES)
    above = params[1:]
    if config.inverse == "exact":
        check_choice("solver", config.solver, SOLVERS)
        start, regularised = SOLVERS[config.solver].start, config.ortho_weight != 0
        return tuple(start(layer["kernel"], regularised) for layer in above)
    if config.inverse == "learned":
        learned = tuple(
            {"kernel": jnp.linalg.inv(layer["kernel"]), "bias": layer["bias"].copy()}
            for layer in above
        )
    else:
        keys = jax.random.split(key, len(params))[1:]
        learned = tuple(
            layers.init(k, len(layer["bias"]), len(layer["bias"]), config.init)
            for k, layer in zip(keys, above, strict=True)
        )
    opt_state = make_optimizer(config.optimizer)(hyper).init(learned)
    return {"layers": learned, "opt_state": opt_state}
