"""Reference values of rewards, selection, weighted policy learning and RELAX."""

import functools

import jax
import numpy as np
from jax import numpy as jnp

from multipath.routing_networks import rewards, selection
from multipath.routing_networks.algorithms import relax, wpl
from multipath.routing_networks.decision import Decision
from shared.model import Variables
from tests.parity.routing import convert, core
from tests.parity.runner import meta
from tests.quick import quick


def _matches_rewards(keys, meta, stem):
    return {"running_average", "correct_classified"} <= keys


def _tolerances_rewards(name, npz, dtype):
    if name in ("actions", "manual_table", "yest", "y_index", "y_onehot", "loss"):
        return None
    return convert.tolerance(name, npz, dtype)


def _run_rewards(npz, dtype):
    settings = meta(npz)
    actions = jnp.asarray(npz["actions"], jnp.int32)
    common = {"rho": settings["reward_ratio"], "window": settings["history_len"]}
    found = {
        kind: _history(rewards.Reward(kind, ratio_power=2, **common), actions, npz)
        for kind in ("collaboration", "running_average")
    }
    manual = rewards.Reward("manual", table=tuple(map(float, npz["manual_table"])))
    loss, outputs = (jnp.asarray(npz[name], dtype) for name in ("loss", "yest"))
    index, one_hot = (jnp.asarray(npz[name]) for name in ("y_index", "y_onehot"))
    found |= {
        "manual": rewards.query(manual, (), actions),
        "neg_loss": rewards.final_reward("neg_loss", loss),
        "correct_classified": rewards.final_reward("correct", loss, outputs, index),
        "correct_classified_onehot": rewards.final_reward(
            "correct", loss, outputs, one_hot
        ),
    }
    return {name: (value, npz[name]) for name, value in found.items()}


def _history(reward, actions, npz):
    """Return the reward of every action after each registration."""
    kinds = jnp.arange(meta(npz)["K"])

    def one(state, action):
        state = rewards.register(reward, state, action[None])
        return state, rewards.query(reward, state, kinds)

    begin = rewards.init(reward, len(kinds))
    return quick(lambda actions: jax.lax.scan(one, begin, actions)[1])(actions)


def _matches_selection(keys, meta, stem):
    return {"y_masked", "y_single_with_mask"} <= keys


def _tolerances_selection(name, npz, dtype):
    if name.startswith(("params/", "single_")) or name in ("x", "actions", "mask"):
        return None
    return convert.tolerance(name, npz, dtype)


def _run_selection(npz, dtype):
    params = convert.nested(npz, "params", dtype)
    single = {n: jnp.asarray(npz[f"single_{n}"], dtype)[None] for n in params}
    x, actions = jnp.asarray(npz["x"], dtype), jnp.asarray(npz["actions"], jnp.int32)
    mask = jnp.asarray(npz["mask"]) != 0
    count, *sizes = params["kernel"].shape

    @quick
    def run(params, single, x):
        def apply(params, x, mask=None, count=count, actions=actions):
            modules = selection.linear_modules(count, *sizes)
            variables = Variables(params)
            return selection.apply(modules, variables, x, actions, mask=mask)[0]

        y, pull = jax.vjp(lambda params: apply(params, x), params)
        none = jnp.zeros_like(actions)
        return {
            "y": y,
            "y_masked": apply(params, x, mask),
            # The published program leaves out the mask of a single module.
            "y_single_with_mask": apply(single, x, count=1, actions=none),
            **convert.flat(pull(2 * y)[0], "grad_sum_sq"),
        }

    used = selection.counts(jnp.where(mask, actions, 0), None, count)
    found = {**run(params, single, x), "used": np.nonzero(used)[0]}
    return {name: (value, npz[name]) for name, value in found.items()}


def _matches_update(keys, meta, stem):
    return "projected_floor" in keys


def _tolerances_update(name, npz, dtype):
    if name.startswith(("new", "projected")):
        return convert.tolerance(name, npz, dtype)
    return None


def _run_update(npz, dtype):
    settings = meta(npz)
    policy, baseline, returns, raw = (
        jnp.asarray(npz[name], dtype) for name in ("pi", "baseline", "ret", "raw")
    )
    # Each row is an agent with one step.
    updated = wpl.wpl_update(
        {"policy": policy, "baseline": baseline},
        jnp.arange(len(policy)),
        jnp.asarray(npz["action"], jnp.int32),
        returns,
        rate=settings["eta"],
        floor=settings["floor"],
    )
    found = {
        "new_pi": updated["policy"],
        "projected": wpl.project(raw),
        "projected_floor": wpl.project(raw, settings["projection_floor"]),
    }
    return {name: (value, npz[name]) for name, value in found.items()}


def _matches_relax(keys, meta, stem):
    return {"upstream_s_tilde", "variance_loss"} <= keys


def _tolerances_relax(name, npz, dtype):
    if name in ("W", "b", "V1", "c1", "V2", "c2", "x", "u", "v", "R"):
        return None
    return convert.tolerance(name, npz, dtype)


def _run_relax(npz, dtype):
    fields = {name: jnp.asarray(npz[name], dtype) for name in npz if name != "meta"}
    params = {
        "policy": {"layer0": {"kernel": fields["W"][None], "bias": fields["b"][None]}},
        "value": {
            "layer0": {"kernel": fields["V1"][None], "bias": fields["c1"][None]},
            "layer1": {"kernel": fields["V2"][None], "bias": fields["c2"][None]},
        },
    }
    fields["action"] = jnp.asarray(npz["action"], jnp.int32)
    program = functools.partial(_relax, meta(npz)["tau"])
    ours = quick(program)(params, fields)
    return {name: (value, npz[name]) for name, value in ours.items()}


def _relax(tau, params, fields):
    inputs, actions = fields["W"].shape
    decision = Decision("d", "relax", actions, inputs)
    size = len(fields["x"])
    drawing = relax.Drawing(
        fields["x"],
        jnp.zeros(size, jnp.int32),
        fields["action"],
        fields["u"],
        fields["v"],
        jnp.full(size, tau, fields["x"].dtype),
    )
    relaxed = relax.relax(decision, params, drawing)

    def mean(policy, value):
        own = {"policy": policy, "value": value}
        return jnp.mean(relax.estimate(decision, own, drawing, fields["R"]))

    def squares(value):
        gradient = jax.grad(mean)(params["policy"], value)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)), gradient

    (variance, gradient), of_value = jax.value_and_grad(squares, has_aux=True)(
        params["value"]
    )
    published = Decision("d", "relax", actions, inputs, compat=True)
    theirs = relax.relax(published, params, drawing)
    first, second = of_value["layer0"], of_value["layer1"]
    return {
        "action": jnp.argmax(relaxed.z, -1),
        **{name: getattr(relaxed, name) for name in ("z", "z_tilde", "s", "s_tilde")},
        "c": relaxed.c,
        "c_tilde": relaxed.c_tilde,
        "grad_W": gradient["layer0"]["kernel"][0],
        "grad_b": gradient["layer0"]["bias"][0],
        "variance_loss": variance,
        "grad_V1": first["kernel"][0],
        "grad_c1": first["bias"][0],
        "grad_V2": second["kernel"][0],
        "grad_c2": second["bias"][0],
        "upstream_action": jnp.argmax(theirs.z, -1),
        "upstream_s": theirs.s,
        "upstream_s_tilde": theirs.s_tilde,
    }


def _matches_wpl(keys, meta, stem):
    return "upstream_loss" in keys and meta.get("algo") == "wpl"


CASES = (
    (_matches_rewards, _run_rewards, _tolerances_rewards),
    (_matches_selection, _run_selection, _tolerances_selection),
    (_matches_update, _run_update, _tolerances_update),
    (_matches_relax, _run_relax, _tolerances_relax),
    (_matches_wpl, core._run_loss, core._tolerances_loss),
)
