"""Reference values of whole networks: passes, objectives, gradients, updates."""

import dataclasses
import functools

import jax
import numpy as np
from jax import numpy as jnp

from multipath.trees import forward, learning, objectives, statistics
from multipath.trees import net as networks
from multipath.trees.graph import layout
from shared import training
from shared.model import Variables
from tests.parity.runner import Tolerance, meta
from tests.parity.trees import convert

INPUTS = {"params", "x0", "y", "k_cpt", "meta", "layer_index", "param_index"}
EXACT = ("n_ops", "router_n_ops", "p_ev", "leaf_cor")


def _matches(keys, meta, stem):
    return {"layer_index", "param_index", "params", "ev/c_tot"} <= keys


def _tolerances(name, npz, dtype):
    if name in INPUTS:
        return None
    if name.endswith(EXACT):
        return Tolerance(0.0)
    if "grad" in name:
        return Tolerance(1e-3, 4e-4)
    if name.startswith("step3"):
        return Tolerance(1e-3, 3e-4)
    if name.endswith("c_mod"):
        return Tolerance(2e-6, 1e-9)
    return Tolerance(1e-4, 2e-5)


def _run(npz, dtype):
    settings, index = meta(npz), convert.text(npz, "param_index")
    net = convert.network(settings, convert.text(npz, "layer_index"))
    hyper = convert.hyper(settings, dtype)
    if "k_cpt" in npz:
        hyper["k_cpt"] = jnp.asarray(npz["k_cpt"], dtype)
    tree = convert.variables(net, npz["params"], index, dtype)
    x, y = jnp.asarray(npz["x0"], dtype), jnp.asarray(npz["y"], dtype)
    program = jax.jit(
        functools.partial(_ours, net, index),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    ours = {**program(tree, x, y, hyper), **_counts(net)}
    ours |= _updates(
        net, index, tree, learning.Batch(x, y), hyper, "step3/params" in npz
    )
    found = {name: (ours[name], npz[name]) for name in npz if name in ours}
    for name, (value, golden) in found.items():
        if name.endswith("router_x"):
            # Beyond a switch's sinks the files hold NaN.
            valid = ~np.isnan(golden)
            found[name] = np.where(valid, value, 0), np.where(valid, golden, 0)
        elif name.startswith(("tr/grad", "step")):
            mask = convert.live(index)
            found[name] = np.where(mask, value, 0), np.where(mask, golden, 0)
    plan, stats = layout(net.root), convert.text(npz, "ev/stats_json")
    whole, nodes = statistics.by_node(plan, ours["stats"])
    means = {f"net/{name}": value for name, value in whole.items()}
    for path, values in nodes.items():
        means |= {f"{path}/{name}": value for name, value in values.items()}
    names = sorted({*stats, *means})
    found["ev/stats_json"] = (
        np.concatenate([np.ravel(means[name]) for name in names]),
        np.concatenate([np.ravel(stats[name]) for name in names]),
    )
    return found


def _ours(net, index, tree, x, y, hyper):
    grads = learning.gradients(net, *tree, learning.Batch(x, y), hyper)
    record, _ = forward.apply(
        net, *tree, x, y=y, k_cpt=hyper["k_cpt"], alpha_cpt=hyper["alpha_cpt"]
    )
    costs = objectives.costs(net, record, hyper)
    found = {
        **_pass(net, "ev", record, costs, hyper),
        **_pass(net, "tr", grads.record, grads.costs, hyper),
        "stats": statistics.means(net, record, costs.reach, y),
    }
    for name, values in (("grad", grads.raw), ("grad_scaled", grads.scaled)):
        found[f"tr/{name}"] = convert.flatten(net, Variables(values, {}), index)
    return found


def _pass(net, mode, record, costs, hyper):
    """Return what one pass gives, by the names of the files."""
    values = {
        "p_tr": costs.reach.p,
        "p_ev": costs.reach.q,
        "c_err": record.c_err,
        "c_mod": jnp.mean(record.c_mod, 1),
        "router_c_mod": jnp.mean(record.router_c_mod, 1),
        "router_x": record.scores,
        "leaf_prob": record.probabilities,
        "leaf_cor": record.correct,
        "c_tot": costs.total,
    }
    if costs.to_go is not None:
        values |= _critic(net, record, hyper, costs)
    return {f"{mode}/{name}": value for name, value in values.items()}


def _critic(net, record, hyper, cost):
    plan = layout(net.root)
    ways = {}
    for name, optimistic in (("c_ev", False), ("c_opt", True)):
        other = dataclasses.replace(net, optimistic=optimistic)
        ways[name] = objectives.costs(other, record, hyper).to_go
    whole = jnp.zeros_like(cost.to_go)
    ways["c_cre"] = whole.at[jnp.array(plan.switches)].set(cost.regression)
    return ways


def _updates(net, index, tree, batch, hyper, three):
    """Return the parameters after one update, or also after three."""
    step = jax.jit(
        training.make_train_step(
            learning.make_update(net), learning.make_optimizer, timed=True
        ),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    state = training.init_state(
        *tree, jax.random.key(0), hyper, learning.make_optimizer
    )
    found = {}
    for number in (1, 2, 3) if three else (1,):
        state, _ = step(state, batch)
        after = Variables(state.params, state.state)
        found[f"step{number}/params"] = convert.flatten(net, after, index)
    return found


def _counts(net):
    nodes, routers = networks.operations(net)
    names = {"n_ops": nodes, "router_n_ops": routers}
    return {f"{m}/{name}": v for m in ("ev", "tr") for name, v in names.items()}


CASES = ((_matches, _run, _tolerances),)
