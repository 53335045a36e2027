"""Reference values of the algorithms' losses, of returns, behaviour, sequences."""

import functools

import jax
import numpy as np
from jax import numpy as jnp

from multipath.routing_networks import selection, trajectory
from multipath.routing_networks.algorithms import ALGORITHMS, Experience, acting
from multipath.routing_networks.decision import Decision, decide
from multipath.routing_networks.sequential import sequential
from shared.model import Model, Variables
from tests.parity.routing import convert
from tests.parity.runner import meta
from tests.quick import quick


def _matches_loss(keys, meta, stem):
    return "upstream_loss" in keys and meta.get("algo") != "wpl"


def _tolerances_loss(name, npz, dtype):
    if name.startswith(("upstream", "corrected")):
        return convert.tolerance(name, npz, dtype)
    return None


def _run_loss(npz, dtype):
    settings = meta(npz)
    names = sorted(settings["channels"], key=settings["channels"].get)
    arrays = {
        name: jnp.asarray(npz[name], dtype)
        for name in ("reward", "ret", "final_reward")
    }
    arrays |= {n: jnp.asarray(npz[n]) for n in ("action", "next_action", "is_terminal")}
    state = {name: jnp.asarray(npz[f"state/{name}"], dtype) for name in names}
    later = {name: jnp.asarray(npz[f"next_state/{name}"], dtype) for name in names}
    program = quick(functools.partial(_losses, settings["algo"], settings["K"]))
    ours = program(state, later, arrays)
    grads = [ours.pop(f"upstream_grad/{name}") for name in names]
    ours["upstream_grad"] = jnp.stack(grads, -1)
    if "upstream_loss_matrix" in npz:
        # Only the sums of its rows are losses of ours.
        ours["upstream_loss_matrix"] = ours["upstream_loss"]
    golden = {name: npz[name] for name in npz}
    if "upstream_loss_matrix" in golden:
        golden["upstream_loss_matrix"] = golden["upstream_loss_matrix"].sum(1)
    return {name: (value, golden[name]) for name, value in ours.items() if name in npz}


def _losses(name, actions, state, later, arrays):
    """Return the published and the corrected losses and gradients."""
    found = {}
    for form, compat, gamma in (
        ("upstream", True, 1.0),
        ("corrected", False, 1.0),
        ("corrected_gamma09", False, 0.9),
    ):
        decision = Decision("d", name, actions, 1, compat=compat)

        def loss(state, decision=decision, gamma=gamma):
            return _loss(decision, state, later, arrays, gamma)

        value, pull = jax.vjp(loss, state)
        (grads,) = pull(jnp.ones_like(value))
        head, _, tail = form.partition("_")
        found[f"{head}_loss{'_' + tail if tail else ''}"] = value
        if not tail:
            found |= {f"{form}_grad/{k}": v for k, v in grads.items()}
    return found


def _loss(decision, state, later, arrays, gamma):
    row = lambda values: {
        name: value[None, :, 0] if name == "v" else value[None]
        for name, value in values.items()
    }
    experience = Experience(
        decision,
        {},
        row(state),
        row(later),
        arrays["action"][None],
        arrays["next_action"][None],
        jnp.zeros_like(arrays["action"])[None],
        jnp.ones_like(arrays["action"], bool)[None],
        arrays["reward"][None],
        arrays["ret"][None],
        arrays["final_reward"][None],
        arrays["is_terminal"][None] != 0,
        gamma,
    )
    return ALGORITHMS[decision.algorithm].loss(experience)[0]


def _matches_returns(keys, meta, stem):
    return {"npar1_add0/rewards", "lengths", "add_used"} <= keys


def _tolerances_returns(name, npz, dtype):
    if name.startswith(("npar", "corrected")):
        return convert.tolerance(name, npz, dtype)
    return None


def _run_returns(npz, dtype):
    table = jnp.asarray(meta(npz)["manual_table"], dtype)
    per_action = table[npz["actions"].T]
    mask = jnp.arange(per_action.shape[0])[:, None] < npz["lengths"][None]
    final = jnp.asarray(npz["final_reward"], dtype)
    extra = np.where(npz["add_used"][:, None], npz["add_rewards"].T, 0)
    found = {}
    for name in (name for name in npz if name.endswith("/rewards")):
        case = name.split("/")[0]
        added = jnp.asarray(extra, dtype) if case.endswith("add1") else 0
        normalize = case.startswith("npar1")
        rewards = trajectory.rewards(
            per_action + added, mask, final, normalize=normalize
        )
        found[name] = rewards.T
        found[f"{case}/returns"] = trajectory.returns(rewards, mask).T
        if case == "npar1_add0":
            discounted = trajectory.returns(rewards, mask, 0.9)
            found["corrected_gamma09_returns"] = discounted.T
    return {name: (value, np.nan_to_num(npz[name])) for name, value in found.items()}


def _matches_behaviour(keys, meta, stem):
    return "egreedy_upstream_state" in keys


def _tolerances_behaviour(name, npz, dtype):
    if name == "egreedy_sampled_frequency":
        return convert.Tolerance(0.0, 1e-2)
    return None if name == "logits" else convert.tolerance(name, npz, dtype)


def _run_behaviour(npz, dtype):
    settings, logits = meta(npz), jnp.asarray(npz["logits"], dtype)
    logp = jax.nn.log_softmax(logits)
    epsilon = settings["epsilon"]
    mu = acting.behaviour(logp, epsilon)
    published = acting.behaviour(logp, epsilon, compat=True)
    rows = len(npz["egreedy_sampled_frequency"])
    seen = functools.partial(_statistics, logits)
    tempered = {"temper": True, "exploration": settings["pg_temp_exploration"]}
    found = {
        "egreedy_upstream_state": jnp.stack([logp, jnp.exp(logp), published], -1),
        "egreedy_corrected_mu": mu,
        "egreedy_sampled_frequency": mu[:rows],
        "wpl_logp": seen("wpl")[0]["logp"],
        "reinforce_temp_logp": seen("reinforce", **tempered)[0]["logp"],
        "greedy_eval_action": seen("qlearning")[1],
    }
    return {name: (value, npz[name]) for name, value in found.items() if name in npz}


def _statistics(logits, algorithm, temper=False, exploration=None):
    """Return what a decision records of given scores, and its greedy choice."""
    identity = Model(lambda key: Variables({}), lambda variables, x: (x, ()))
    size = logits.shape[1]
    decision = Decision(
        "d", algorithm, size, size, network=identity, temper=temper, compat=True
    )
    _, start, _ = trajectory.initialize(logits)
    stores = {"policy": {"network": jnp.zeros(1)}, "value": {"network": jnp.zeros(1)}}
    _, record, action = decide(
        decision, stores, logits, start, None, exploration=exploration
    )
    own = record.steps[0].statistics
    return {name: value[0] for name, value in own.items()}, action


def _matches_sequence(keys, meta, stem):
    return "layout" in meta and "tasks" in keys


def _tolerances_sequence(name, npz, dtype):
    if name in ("actions", "out"):
        return convert.tolerance(name, npz, dtype)
    return None


def _run_sequence(npz, dtype):
    params = convert.nested(npz, "params", dtype)
    shapes = {
        name: value["kernel"].shape
        for name, value in params.items()
        if "kernel" in value
    }
    agents, features, actions = params["decision"]["policy"]["layer0"]["kernel"].shape
    decision = Decision("d", "reinforce", actions, features, agents=agents, compat=True)
    network = sequential(
        [
            ("per_task", None),
            ("decision", decision),
            ("selection", selection.linear_modules(*shapes["selection0"])),
            ("function", jnp.tanh),
            ("selection", selection.linear_modules(*shapes["selection1"])),
        ]
    )
    modules = {"layer2": params["selection0"], "layer4": params["selection1"]}
    own = {"routing": {"d": params["decision"]}, "modules": modules}
    variables = Variables(own, {"memory": {}, "trunk": {}})
    out, record, _ = network.apply(
        variables,
        jnp.asarray(npz["x"], dtype),
        jnp.asarray(npz["tasks"]),
        train=True,
        forced=jnp.asarray(npz["actions"])[None],
    )
    found = {"actions": trajectory.actions(record)[0], "out": out}
    return {name: (value, npz[name]) for name, value in found.items()}


CASES = (
    (_matches_sequence, _run_sequence, _tolerances_sequence),
    (_matches_loss, _run_loss, _tolerances_loss),
    (_matches_returns, _run_returns, _tolerances_returns),
    (_matches_behaviour, _run_behaviour, _tolerances_behaviour),
)
