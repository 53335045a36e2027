"""Reference values of whole networks: trunk, a pass in training, an evaluation."""

import functools

import jax
import numpy as np
from jax import numpy as jnp

from multipath.routing_networks import backbones, losses, networks
from multipath.routing_networks import trajectory as trajectories
from multipath.routing_networks.config import Config
from shared.model import Variables
from tests.parity.routing import convert
from tests.parity.runner import Tolerance, meta
from tests.quick import quick

INPUTS = ("x", "tasks", "labels", "actions")
MODELS = {
    "RoutedAllFC": "routed_all_fc",
    "Dispatched": "dispatched",
    "PerDecisionSingleAgent": "per_decision_single_agent",
}
ALGORITHMS = {
    "WPL": "wpl",
    "AdvantageLearning": "advantage",
    "REINFORCE": "reinforce",
}


def _matches(keys, meta, stem):
    return {"features_train", "out_train", "out_eval"} <= keys


def _tolerances(name, npz, dtype):
    if name in INPUTS or name.startswith("params/"):
        return None
    if name in ("actions_eval", "modules_used"):
        return Tolerance(0.0)
    return Tolerance(2e-5)


def _run(npz, dtype):
    settings = meta(npz)
    model = MODELS[settings["model"]]
    x = jnp.asarray(npz["x"].transpose(0, 2, 3, 1), dtype)
    config = Config(
        model=model,
        algorithm=ALGORITHMS[settings["algo"]],
        modules=settings["modules"],
        agents=settings["agents"] if model == "dispatched" else 0,
        rho=settings["collab_ratio"],
        window=settings["history"],
        compat=True,
    )
    network = networks.build(config, x.shape[1:], settings["out"], settings["agents"])
    params = convert.nested(npz, "params", dtype)
    fields = {name: jnp.asarray(npz[name], jnp.int32) for name in INPUTS[1:]}
    ours = quick(functools.partial(_ours, network))(params, x, fields)
    chosen = np.asarray(ours["actions_eval"])[:, -3:]
    ours["modules_used"] = np.array([len(set(column)) for column in chosen.T])
    return {name: (ours[name], npz[name]) for name in npz if name in ours}


def _begun(network, params):
    """Return the variables of a network, the file's parameters in their places."""
    params, state = dict(params), network.init(jax.random.key(0)).state
    routing = {
        own.name: params.pop(f"decision{i}") for i, own in enumerate(network.decisions)
    }
    modules = {name: params.pop(name) for name in sorted(params) if "conv" not in name}
    count = len(state["trunk"]["mean"])
    dtype = state["trunk"]["mean"].dtype
    norm = {"scale": jnp.ones(count, dtype), "offset": jnp.zeros(count, dtype)}
    modules["trunk"] = {**params, "norm": norm}
    return Variables({"routing": routing, "modules": modules}, state)


def _ours(network, params, x, fields):
    tasks, labels, forced = (fields[name] for name in INPUTS[1:])
    variables, trunk = _begun(network, params), backbones.convnet(x.shape[1:])
    below = Variables(variables.params["modules"]["trunk"], variables.state["trunk"])
    features, after = trunk.apply(below, x, train=True)
    # The trunk's statistics have seen the batch before each pass in training.
    state = {**variables.state, "trunk": after}

    def cost(params):
        out, record, new = network.apply(
            Variables(params, state), x, tasks, train=True, forced=forced.T
        )
        got = losses.total(params["routing"], record, out, labels)
        return jnp.mean(got.module) + jnp.mean(got.routing), (out, got, new)

    grads, (out, got, state) = jax.grad(cost, has_aux=True)(variables.params)
    evaluated, record, _ = network.apply(Variables(variables.params, state), x, tasks)
    found = {
        "features_train": features,
        "bn_running_mean_after_1": after["mean"],
        "bn_running_var_after_1": after["var"],
        "out_train": out,
        "module_loss": got.module,
        "routing_loss": got.routing,
        "out_eval": evaluated,
        "actions_eval": trajectories.actions(record).T,
    }
    return found | _gradients(network, grads)


def _gradients(network, grads):
    """Return the gradients by the names of the files."""
    modules = dict(grads["modules"])
    trunk = modules.pop("trunk")
    biases = [trunk[f"conv{i}"]["bias"] for i in range(len(trunk) - 1)]
    found = {"grad_total/conv_bias": jnp.stack(biases)}
    for i, own in enumerate(network.decisions):
        found |= convert.flat(grads["routing"][own.name], f"grad_total/decision{i}")
    return found | convert.flat(modules, "grad_total")


CASES = ((_matches, _run, _tolerances),)
