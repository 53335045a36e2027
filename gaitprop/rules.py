"""Rules of credit assignment, and the parameter updates that follow from them.

A rule turns the error at the output into an error for every layer,

    rule(params, rule_state, activities, target, hyper, config)
        -> (errors, rule_state, info)

with `errors` = eps_1..eps_L, `[batch, n_l]` each, and everything it remembers in
`rule_state`. What follows is common: `delta_l = f'_l eps_l`, kernel gradient
`h_{l-1}^T delta_l / batch`, bias gradient `mean(delta_l)`. A new rule is one function
and one entry of `RULES` (and one of `STATES` if it remembers something).

Reference: Ahmad, van Gerven, Ambrogioni 2020, arXiv 2006.06438; Dalm et al. 2021,
arXiv 2102.11598 (`gait_adaptive`, `feedback_alignment`).
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gaitprop import diagnostics, layers, networks, propagation, regulariser, transfer
from gaitprop.networks import Activities, Params
from gaitprop.propagation import Nudge, Result
from shared.errors import check_choice

Errors = tuple[Array, ...]
Hyper = dict[str, Array]
Rule = Callable[..., Result]


def _through(send, activities, target, config) -> Errors:
    """Send the output error down, `eps_{l-1} = [send(l, delta_l), 0]`."""
    slopes = networks.slopes(config)
    errors = [activities[-1] - target]
    for i in range(len(slopes) - 1, 0, -1):
        delta = transfer.derivative(activities[i + 1], slopes[i]) * errors[0]
        width = _active(i, len(slopes), delta, config)
        block = send(i, delta[:, :width], width)
        rest = jnp.zeros_like(activities[i][:, block.shape[1] :])
        errors.insert(0, networks.extend(block, rest))
    return tuple(errors)


def _active(i, depth, delta, config) -> int:
    """Return how many units of layer `i` can have an error: the classes at the top."""
    units = delta.shape[1]
    return min(config.classes, units) if i == depth - 1 else units


def bp(params, rule_state, activities, target, hyper, config) -> Result:
    """Back-propagation, `eps_{l-1} = [delta_l W_l^T, 0]`."""
    del hyper

    def send(i, delta, width):
        return delta @ params[i]["kernel"][:, :width].T

    return _through(send, activities, target, config), rule_state, {}


def feedback_alignment(params, rule_state, activities, target, hyper, config) -> Result:
    """Back-propagation through fixed random orthogonal matrices."""
    del params, hyper

    def send(i, delta, width):
        return delta @ rule_state[i - 1][:, :width].T

    return _through(send, activities, target, config), rule_state, {}


def tp(params, rule_state, activities, target, hyper, config) -> Result:
    """Target propagation, `eps_l = h_l - t_l`."""
    nudge = Nudge(False, propagation.keep)
    return propagation.propagate(
        nudge, params, rule_state, activities, target, hyper, config
    )


def gait(params, rule_state, activities, target, hyper, config) -> Result:
    """GAIT-prop: a small move, scaled so that orthogonal kernels give back-propagation.

    While no unit changes sign it is back-propagation with `W^-1` in place of `W^T`,
    whatever gamma; `config.gamma == 0` takes that limit.
    """
    nudge = Nudge(True, propagation.shrink)
    return propagation.propagate(
        nudge, params, rule_state, activities, target, hyper, config
    )


def itp(params, rule_state, activities, target, hyper, config) -> Result:
    """Incremental target propagation: GAIT-prop without the squared derivative."""
    nudge = Nudge(False, propagation.shrink)
    return propagation.propagate(
        nudge, params, rule_state, activities, target, hyper, config
    )


def gait_adaptive(params, rule_state, activities, target, hyper, config) -> Result:
    """GAIT-prop with `gamma sqrt(n_l) / ||h_l - t_l||` for each sample and layer."""
    nudge = Nudge(True, propagation.fixed_length)
    return propagation.propagate(
        nudge, params, rule_state, activities, target, hyper, config
    )


RULES: dict[str, Rule] = {
    "bp": bp,
    "tp": tp,
    "gait": gait,
    "itp": itp,
    "gait_adaptive": gait_adaptive,
    "feedback_alignment": feedback_alignment,
}
"""Rules by name; `config.algorithm` picks one."""


def _no_state(key, params, config, hyper):
    del key, params, config, hyper
    return ()


def _feedback_state(key, params, config, hyper):
    """Draw one orthogonal matrix for each layer above the first."""
    del config, hyper
    draw = jax.nn.initializers.orthogonal()
    keys = jax.random.split(key, len(params))[1:]
    kernels = [layer["kernel"] for layer in params[1:]]
    return tuple(draw(k, w.shape, w.dtype) for k, w in zip(keys, kernels, strict=True))


STATES: dict[str, Callable[..., Any]] = {
    "feedback_alignment": _feedback_state,
    "tp": propagation.init_state,
    "gait": propagation.init_state,
    "itp": propagation.init_state,
    "gait_adaptive": propagation.init_state,
}
"""`(key, params, config, hyper) -> rule_state`, for rules that remember something."""


def init_rule_state(
    key: Key[Array, ""], params: Params, config: Any, hyper: Hyper
) -> Any:
    """Return what the rule of `config` remembers at step 0; `()` for BP.

    Args:
        key: consumed by rules with random parts.
        params: initial parameters.
        config: for `algorithm`, and `inverse`, `solver`, `optimizer`, `init`.
        hyper: traced settings.
    """
    check_choice("algorithm", config.algorithm, RULES)
    return STATES.get(config.algorithm, _no_state)(key, params, config, hyper)


def gradients(
    params: Params,
    rule_state: Any,
    x: Float[Array, "batch inputs"],
    labels: Int[Array, " batch"],
    hyper: Hyper,
    config: Any,
    rule: Rule | None = None,
) -> tuple[Params, tuple[Any, dict[str, Array]]]:
    """Return a rule's gradients, in descent sign and with the regulariser.

    Args:
        params: parameters of all layers.
        rule_state: what the rule remembers.
        x: inputs.
        labels: the right classes.
        hyper: traced settings: `gamma`, `ortho_weight`, ...
        config: static settings; `ortho_weight == 0` leaves out the regulariser.
        rule: the rule; by default the one that `config` names.

    Returns:
        Gradients like `params`, the new rule state, and the batch's metrics: `accuracy`
        and `mse` before the update, `error_rms` of layer 1 (not finite after a singular
        kernel) and the rule's own figures.
    """
    if rule is None:
        check_choice("algorithm", config.algorithm, RULES)
        rule = RULES[config.algorithm]
    regularised = config.ortho_weight != 0
    if regularised:
        # Formed once for the regulariser and for the solver.
        params = tuple({**p, "gram": regulariser.gram(p["kernel"])} for p in params)
    activities = networks.forward(params, x, config)
    target = networks.output_target(activities[-1], labels, config)
    errors, rule_state, info = rule(
        params, rule_state, activities, target, hyper, config
    )
    grads = data_gradients(params, errors, activities, config)
    if regularised:
        grads = add_regulariser(grads, params, hyper["ortho_weight"], config)
    metrics = {
        **diagnostics.metrics(activities[-1], labels, config.classes),
        "error_rms": jnp.sqrt(jnp.mean(errors[0] ** 2)),
        **info,
    }
    return grads, (rule_state, metrics)


def data_gradients(
    params: Params, errors: Errors, activities: Activities, config: Any
) -> Params:
    """Return the gradients that follow from the layers' errors."""
    check_choice("reduction", config.reduction, networks.REDUCTIONS)
    scale = 1.0 if config.reduction == "sum" else 1.0 / activities[0].shape[0]
    slopes, grads = networks.slopes(config), []
    for i, (eps, slope) in enumerate(zip(errors, slopes, strict=True)):
        delta = scale * transfer.derivative(activities[i + 1], slope) * eps
        below = layers.read(activities[i], params[i]["kernel"].shape[0])
        width = _active(i, len(slopes), delta, config)
        kernel = below.T @ delta[:, :width]
        rest = jnp.zeros((kernel.shape[0], eps.shape[1] - width), kernel.dtype)
        grads.append(
            {"kernel": networks.extend(kernel, rest), "bias": delta.sum(axis=0)}
        )
    return tuple(grads)


def add_regulariser(
    grads: Params, params: Params, weight: Float[Array, ""], config: Any
) -> Params:
    """Add `weight` times the gradient of the orthogonality regulariser."""
    total = []
    for grad, layer in zip(grads, params, strict=True):
        slope = regulariser.gradient(
            layer["kernel"], config.ortho_target, gram_=layer.get("gram")
        )
        total.append({**grad, "kernel": grad["kernel"] + weight * slope})
    return tuple(total)


_TOTALS = ("sweeps", "refreshes", "fallbacks")


def make_update(static: Any) -> Callable[..., tuple[Params, tuple[Any, Any]]]:
    """Return the update rule of `static` for the shared training step.

    The result is `(params, rule_state, (x, labels), key, hyper) -> (grads, (rule_state,
    metrics))`, with scalar metrics: the rule's figures are totals over layers
    (`sweeps`, `refreshes`, `fallbacks`), the largest (`residual`) or the mean.
    """

    def update(params, rule_state, batch, key, hyper):
        del key
        x, labels = batch
        grads, (rule_state, metrics) = gradients(
            params, rule_state, x, labels, hyper, static
        )
        return grads, (rule_state, {k: _scalar(k, v) for k, v in metrics.items()})

    return update


def _scalar(name: str, value: Array) -> Array:
    if value.ndim == 0:
        return value
    if name in _TOTALS:
        return value.sum()
    return value.max() if name == "residual" else value.mean()
