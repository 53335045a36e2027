"""What a routing network does: accuracy by task, entropy, use of modules, collapse.

`answers` and `routes` give means over a batch, which may be averaged over batches;
`finish` turns the averages into what is reported, so that every ratio is one of whole
sets.

Reference: Rosenbaum, Klinger and Riemer (2018), section 5; Rosenbaum et al. (2019),
section 4, on collapse and under-use.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from multipath.routing_networks.algorithms import formulas
from multipath.routing_networks.trajectory import Steps, Trajectory

SCORES = ("logp", "logits")
"""Statistics that are scores of a policy."""


def log_policy(steps: Steps) -> Float[Array, "depth batch actions"] | None:
    """Return the logarithms of a policy, or None if actions have values alone."""
    for name in SCORES:
        if name in steps.statistics:
            return jax.nn.log_softmax(steps.statistics[name])
    return None


def answers(
    right: Bool[Array, " batch"],
    labels: Int[Array, " batch"],
    tasks: Int[Array, " batch"],
    *,
    classes: int,
    task_count: int,
) -> dict[str, Array]:
    """Return what was asked and answered, as means over a batch.

    Returns:
        `seen` and `hits` `[tasks, classes]`, shares of the examples and of those
        answered rightly.
    """
    dtype = jnp.result_type(float)
    at = jax.nn.one_hot(tasks, task_count, dtype=dtype)
    of = jax.nn.one_hot(labels, classes, dtype=dtype)
    seen, hits = at.T @ of, at.T @ (of * right.astype(dtype)[:, None])
    return {"seen": seen / len(right), "hits": hits / len(right)}


def routes(
    trajectory: Trajectory, tasks: Int[Array, " batch"], *, task_count: int
) -> dict[str, Array]:
    """Return where the samples went, as means over a batch.

    Returns:
        By name of a decision `NAME/use` `[tasks, actions]`, actions taken at each
        executed step, and of a policy `NAME/policy` `[tasks, actions]`, probabilities,
        and `NAME/entropy` `[tasks]`; by pairs of successive calls `NAME-NEXT/flow`
        `[actions, actions]`.
    """
    at = jax.nn.one_hot(tasks, task_count, dtype=jnp.result_type(float))
    found = {}
    for name, several in _by_decision(trajectory).items():
        found |= {f"{name}/{k}": v for k, v in _measure_steps(several, at).items()}
    for one, after in itertools.pairwise(trajectory.steps):
        pair = f"{one.decision.name}-{after.decision.name}"
        found[f"{pair}/flow"] = _flow(one, after, at.dtype)
    return found


def acts(
    trajectory: Trajectory, rewards: Float[Array, "depth batch"]
) -> dict[str, Array]:
    """Return what decisions did in training, as means over their executed steps.

    Args:
        trajectory: of a pass in training.
        rewards: of each step.

    Returns:
        By name of a decision `NAME/exploratory`, the share of its actions, and
        `NAME/reward`.
    """
    found = {}
    for name, several in _by_decision(trajectory).items():
        masks = [steps.mask for steps in several]
        count = jnp.maximum(sum(jnp.sum(mask) for mask in masks), 1)
        got = [rewards[np.array(steps.positions)] for steps in several]
        for kind, values in (
            ("exploratory", [steps.exploratory for steps in several]),
            ("reward", got),
        ):
            pairs = zip(masks, values, strict=True)
            found[f"{name}/{kind}"] = sum(jnp.sum(m * v) for m, v in pairs) / count
    return found


def critic_error(
    trajectory: Trajectory, returns: Float[Array, "depth batch"]
) -> Float[Array, ""]:
    """Return the mean squared distance of predicted returns from those that came.

    Zero without decisions that predict any.
    """
    total = count = jnp.zeros((), returns.dtype)
    for steps in trajectory.steps:
        known = steps.statistics
        if steps.decision.algorithm == "relax":
            # Its statistics are noise.
            continue
        if "v" in known:
            value = known["v"]
        elif "q" in known:
            at = steps.action[..., None]
            value = jnp.take_along_axis(known["q"], at, -1)[..., 0]
        else:
            continue
        error = (value - returns[np.array(steps.positions)]) ** 2
        total += jnp.sum(jnp.where(steps.mask, error, 0))
        count += jnp.sum(steps.mask)
    return total / jnp.maximum(count, 1)


def _flow(one: Steps, after: Steps, dtype: Any) -> Float[Array, "actions after"]:
    """Return the shares of the samples by their last action and their first after."""
    both = (one.mask[-1] & after.mask[0]).astype(dtype)
    ends = (one.action[-1], one.decision), (after.action[0], after.decision)
    left, right = (jax.nn.one_hot(a, d.actions, dtype=dtype) for a, d in ends)
    return (left * both[:, None]).T @ right / both.size


def _measure_steps(
    several: list[Steps], at: Float[Array, "batch tasks"]
) -> dict[str, Array]:
    totals: dict[str, Array] = {}
    for steps in several:
        mask = steps.mask.astype(at.dtype)
        actions = jax.nn.one_hot(steps.action, steps.decision.actions, dtype=at.dtype)
        one = {
            "use": jnp.einsum("bt,db,dba->ta", at, mask, actions),
        }
        logp = log_policy(steps)
        if logp is not None:
            one["policy"] = jnp.einsum("bt,db,dba->ta", at, mask, jnp.exp(logp))
            one["entropy"] = jnp.sum((mask * formulas.entropy(logp)) @ at, 0)
        totals = {k: v + totals[k] if totals else v for k, v in one.items()}
    return {name: total / at.shape[0] for name, total in totals.items()}


def _by_decision(trajectory: Trajectory) -> dict[str, list[Steps]]:
    found: dict[str, list[Steps]] = {}
    for steps in trajectory.steps:
        found.setdefault(steps.decision.name, []).append(steps)
    return found


def finish(record: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the averages of `answers` and `routes` in a record into what is reported.

    Every `PREFIX/seen` with its `PREFIX/hits` becomes `PREFIX/accuracy`,
    `PREFIX/balanced_accuracy` (mean over tasks of the mean over their classes) and the
    same two by task. Of a decision, `use` becomes shares by task; it gains `modules`,
    the effective number exp(entropy of the use), `agreement`, the share of a task's
    examples that take its commonest action, `depth`, executed steps per example, and
    `task_entropy` if it has a policy, whose `policy` and `entropy` become means over
    executed steps.
    `PREFIX/error` is divided by `PREFIX/power`, that of the targets.
    """
    made = dict(record)
    for key in record:
        prefix, _, name = key.rpartition("/")
        start = f"{prefix}/" if prefix else ""
        if name == "seen":
            seen, hits = np.asarray(made.pop(key)), np.asarray(made.pop(f"{start}hits"))
            made |= {start + k: v for k, v in _accuracies(seen, hits).items()}
        elif name == "use":
            made |= {start + k: v for k, v in _shares(made, start).items()}
        elif name == "power":
            made[f"{start}error"] /= made.pop(key)
    return made


def _accuracies(seen: np.ndarray, hits: np.ndarray) -> dict[str, Any]:
    by_class = hits / np.where(seen > 0, seen, 1)
    known = np.maximum((seen > 0).sum(1), 1)
    tasks = seen.sum(1)
    by_task = hits.sum(1) / np.where(tasks > 0, tasks, 1)
    balanced = by_class.sum(1) / known
    here = tasks > 0
    return {
        "accuracy": float(hits.sum() / max(seen.sum(), 1e-30)),
        "balanced_accuracy": float(balanced[here].mean()) if here.any() else 0.0,
        "task_accuracy": by_task.tolist(),
        "task_balanced_accuracy": balanced.tolist(),
    }


def _shares(record: Mapping[str, Any], start: str) -> dict[str, Any]:
    use = np.asarray(record[f"{start}use"], float)
    steps = max(use.sum(), 1e-30)
    shares = use / np.maximum(use.sum(1, keepdims=True), 1e-30)
    overall = use.sum(0) / steps
    spread = -np.sum(overall * np.log(np.where(overall > 0, overall, 1)))
    made = {
        "use": shares.tolist(),
        "modules": float(np.exp(spread)),
        "agreement": float(np.sum(use.max(1)) / steps),
        "depth": float(use.sum()),
    }
    if f"{start}entropy" in record:
        total = np.maximum(use.sum(1), 1e-30)
        probs, spent = (np.asarray(record[start + k]) for k in ("policy", "entropy"))
        made["policy"] = (probs / total[:, None]).tolist()
        made["entropy"] = float(spent.sum() / steps)
        made["task_entropy"] = (spent / total).tolist()
    return made
