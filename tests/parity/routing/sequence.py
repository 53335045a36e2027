"""Reference values of routed recurrent cells over a few steps."""

import functools

import jax
import numpy as np
from jax import numpy as jnp

from multipath.routing_networks import losses, lstm, trajectory
from multipath.routing_networks.decision import Decision
from tests.parity.routing import convert
from tests.parity.runner import meta
from tests.quick import quick

INPUTS = {"x", "y", "h0", "c0", "agent", "meta"}
RENAMED = {"linear_i2h": "i2h", "linear_h2h": "h2h"}


def _matches(keys, meta, stem):
    return {"h0", "c0", "lengths", "actions_t0"} <= keys


def _tolerances(name, npz, dtype):
    if name in INPUTS or name.startswith("params/"):
        return None
    if name == "lengths":
        return convert.Tolerance(0.0)
    return convert.tolerance(name, npz, dtype)


def _run(npz, dtype):
    settings = meta(npz)
    cell = _cell(settings)
    times = settings["time_steps"]
    actions = np.concatenate([npz[f"actions_t{t}"].T for t in range(times)])
    floats = {n: jnp.asarray(npz[n], dtype) for n in ("x", "y", "h0", "c0")}
    program = quick(functools.partial(_ours, cell))
    params = _params(convert.nested(npz, "params", dtype))
    # Steps that were not executed have no action.
    forced = jnp.asarray(np.maximum(actions, 0))
    found, grads = program(params, floats, jnp.asarray(npz["agent"]), forced)
    ours = {name: value for name, value in found.items() if name in npz}
    ours |= convert.flat(_named(grads), "grad_total")
    return {name: (value, npz[name]) for name, value in ours.items()}


def _ours(cell, params, arrays, agent, forced):
    """Return what a file holds; cells come from single steps, all else from a scan."""
    x, begun, _ = trajectory.initialize(arrays["x"])
    first = lstm.LSTMState(arrays["h0"], arrays["c0"])

    def cost(params):
        (h, last), taken, _ = lstm.lstm_scan(
            cell, params, x, begun, agent, state=first, train=True, forced=forced
        )
        found = losses.total(params["routing"], taken, last.h, arrays["y"])
        both = jnp.mean(found.module) + jnp.mean(found.routing)
        return both, (h, taken, found)

    grads, (h, taken, found) = jax.grad(cost, has_aux=True)(params)
    mask = trajectory.masks(taken)
    ours = {
        "lengths": jnp.sum(mask, 0),
        "module_loss": found.module,
        "routing_loss": found.routing,
    }
    actions = jnp.where(mask, trajectory.actions(taken), -1)
    state, calls = first, cell.calls
    for t in range(x.shape[1]):
        rows = slice(t * calls, (t + 1) * calls)
        options = {"state": state, "train": True, "forced": forced[rows]}
        state, begun, _ = lstm.lstm_step(cell, params, x[:, t], begun, agent, **options)
        ours |= {f"h{t + 1}": h[:, t], f"c{t + 1}": state.c}
        ours[f"actions_t{t}"] = actions[rows].T
    return ours, grads


def _cell(settings):
    router = Decision(
        "router",
        settings["algo"],
        settings["K"],
        settings["hidden"],
        agents=settings["agents"],
        compat=True,
    )
    routed = tuple(s for s in ("i2h", "h2h") if settings[f"route_{s}"])
    sizes = settings["in_features"], settings["hidden"]
    return lstm.Cell(*sizes, router, depth=settings["depth"], routed=routed)


def _params(tree):
    """Sort a file's parameters into groups, modules under their decision's name."""
    found = {"routing": {}, "modules": {}}
    for name, value in tree.items():
        if name.startswith("router"):
            found["routing"][name] = value
        else:
            own = RENAMED.get(name, name.replace("selection", "router"))
            found["modules"][own] = value
    return found


def _named(grads):
    """Undo `_params`; the files have no gradients of unrouted maps."""
    found = dict(grads["routing"])
    for name, value in grads["modules"].items():
        if name not in RENAMED.values():
            found[name.replace("router", "selection")] = value
    return found


CASES = ((_matches, _run, _tolerances),)
