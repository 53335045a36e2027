"""Reference values of whole passes: decisions, selections, losses, gradients."""

import functools

import jax
import numpy as np
from jax import numpy as jnp

from multipath.routing_networks import losses, selection, trajectory
from multipath.routing_networks.decision import decide
from tests.parity.routing import convert
from tests.parity.runner import meta
from tests.quick import quick

BY_VALUE = ("qlearning", "sarsa", "advantage", "bootstrap_advantage", "surprise")


def _matches(keys, meta, stem):
    return "traj_actions" in keys and "params/decision0" in " ".join(keys)


def _tolerances(name, npz, dtype):
    if name in ("x", "agent", "y") or name.startswith("params/"):
        return None
    if name.startswith("step") and name.endswith(("/mask", "/u", "/v")):
        return None
    return convert.tolerance(name, npz, dtype)


def _run(npz, dtype):
    settings = meta(npz)
    steps = range(len(settings["K"]))
    params = convert.nested(npz, "params", dtype)
    fields = {"x": jnp.asarray(npz["x"], dtype), "agent": jnp.asarray(npz["agent"])}
    y = npz["y"]
    fields["y"] = jnp.asarray(y, dtype if y.dtype.kind == "f" else None)
    fields["actions"] = jnp.asarray(npz["actions"])
    for step in steps:
        part = {
            name: jnp.asarray(npz[f"step{step}/{name}"], dtype)
            for name in ("mask", "u", "v")
            if f"step{step}/{name}" in npz
        }
        fields[f"step{step}"] = part
    ours = quick(functools.partial(_ours, settings))(params, fields)
    for step in steps:
        name = f"step{step}/is_exploratory"
        if settings["algo"] in BY_VALUE:
            # A random action may be the greedy one: the coin itself is an input.
            coin = npz[name] == 1
            ours[name] = np.where(coin, 1, ours[name])
    found = {name: _executed(ours, name, npz) for name in npz if name in ours}
    if settings["algo"] == "wpl" and settings["storage"] == "approx":
        # The least probability is the precision.
        least = np.log(np.finfo(dtype).eps)
        for name in (name for name in found if name.endswith("/state")):
            value, golden = found[name]
            found[name] = value, np.maximum(golden, [least, -np.inf])
    return found


def _executed(ours, name, npz):
    """Return both arrays with 0 in the place of what was not executed."""
    golden, value = npz[name], np.asarray(ours[name])
    if golden.dtype.kind == "f":
        missing = np.isnan(golden)
    elif name == "is_terminal":
        missing = np.isnan(npz["rewards"])
    else:
        missing = golden < 0
    return np.where(missing, 0, value), np.where(missing, 0, golden)


def _ours(settings, params, fields):
    """Return all that a file holds, by its names."""

    def both(params):
        found, module, routing = _pass(settings, params, fields)
        return jnp.stack(
            [jnp.mean(routing), jnp.mean(module) + jnp.mean(routing)]
        ), found

    (_, found), pull = _with_pull(both, params)
    for name, cotangent in (("grad_routing", [1.0, 0.0]), ("grad_total", [0.0, 1.0])):
        (grads,) = pull(jnp.asarray(cotangent, fields["x"].dtype))
        found |= convert.flat(grads, name)
        if name == "grad_routing":
            found |= convert.flat(grads, "grad_inplace")
    return found


def _with_pull(fn, params):
    value, pull, found = jax.vjp(fn, params, has_aux=True)
    return (value, found), pull


def _pass(settings, params, fields):
    x, record, _ = trajectory.initialize(fields["x"])
    found, mask = {}, None
    for step, actions in enumerate(settings["K"]):
        decision, own = convert.decision(settings, step), fields[f"step{step}"]
        noise = (own["u"], own["v"]) if "v" in own else own.get("u")
        mask = own["mask"] != 0 if "mask" in own else mask
        x, record, chosen = decide(
            decision,
            params[decision.name],
            x,
            record,
            fields["agent"],
            train=settings["training"],
            mask=mask,
            exploration=settings["pg_temp_exploration"],
            forced=fields["actions"][:, step] if settings["training"] else None,
            noise=noise,
        )
        found[f"step{step}/h_after_decision"] = x
        kernel = params[f"selection{step}"]["kernel"]
        x, record, chosen = selection.select(
            selection.linear_modules(actions, *kernel.shape[1:]),
            params[f"selection{step}"],
            x,
            record,
            chosen,
            mask=mask,
        )
        found[f"step{step}/h_after_selection"] = x
        last = record.steps[-1]
        statistics = {name: value[0] for name, value in last.statistics.items()}
        found[f"step{step}/state"] = convert.channels(settings["algo"], statistics)
        found[f"step{step}/is_exploratory"] = last.exploratory[0]
    return _finish(settings, params, fields, x, record, found)


def _finish(settings, params, fields, x, record, found):
    """Add what the loss gives."""
    objective = losses.Objective(
        convert.LOSSES[settings["loss"]],
        convert.FINALS[settings["final"]],
        normalize=settings["normalize_per_action_rewards"],
    )
    got = losses.total(params, record, x, fields["y"], objective=objective)
    terminal = [
        trajectory.following(record, steps.decision).terminal[0]
        for steps in record.steps
    ]
    actions = trajectory.actions(record).T
    found |= {
        "actions": actions,
        "traj_actions": actions,
        "out": x,
        "final_reward": got.final,
        "rewards": got.rewards.T,
        "returns": got.returns.T,
        "is_terminal": jnp.stack(terminal, 1),
        "module_loss": got.module,
        "routing_loss": got.routing,
    }
    return found, got.module, got.routing


CASES = ((_matches, _run, _tolerances),)
