"""From the files' arrays and settings to parameters and decisions."""

from typing import Any

import numpy as np
from jax import numpy as jnp

from multipath.routing_networks.decision import Decision
from multipath.routing_networks.rewards import Reward
from tests.parity.runner import Npz, Tolerance

CHANNELS = {
    "reinforce": ("logp",),
    "reinforce_bl1": ("logp", "q"),
    "reinforce_bl2": ("logp", "q"),
    "egreedy_reinforce": ("logp", "probs", "mu"),
    "qlearning": ("q",),
    "sarsa": ("q",),
    "actor_critic": ("logp", "q"),
    "aac": ("logp", "v"),
    "bootstrap_aac": ("logp", "v"),
    "egreedy_aac": ("logp", "probs", "mu", "v"),
    "advantage": ("adv", "v"),
    "bootstrap_advantage": ("adv", "v"),
    "surprise": ("adv", "v"),
    "wpl": ("logp", "q"),
    "gumbel": ("logits",),
    "relax": ("logits", "c", "c_tilde"),
}
"""Statistics of each algorithm in the order of the files."""

LOSSES = {"mse": "squared", "ce": "cross_entropy"}
FINALS = {"negloss": "neg_loss", "cc": "correct"}


def reward(kind: str, actions: int) -> Reward:
    """Return a per-action reward of a file."""
    if kind == "manual":
        return Reward(kind, table=tuple(0.1 * (a + 1) for a in range(actions)))
    if kind == "collab":
        return Reward("collaboration", rho=0.3, window=256, ratio_power=2)
    if kind == "running":
        return Reward("running_average", rho=0.3, window=32)
    return Reward()


def decision(settings: dict[str, Any], step: int) -> Decision:
    """Build one decision of a file."""
    actions = settings["K"][step]
    return Decision(
        f"decision{step}",
        settings["algo"],
        actions,
        settings["dims"][step],
        agents=settings["agents"],
        storage={"approx": "approximate"}.get(settings["storage"], "tabular"),
        hidden=tuple(settings["hidden"]),
        detach=settings["detach"],
        exploration=settings["exploration"],
        reward=reward(settings["per_action"], actions),
        temper=settings["pg_temp_exploration"] is not None,
        compat=True,
    )


def nested(npz: Npz, prefix: str, dtype: Any) -> dict[str, Any]:
    """Return the arrays below a name as nested dicts."""
    found = {}
    for name, value in npz.items():
        if name.startswith(f"{prefix}/"):
            *keys, last = name[len(prefix) + 1 :].split("/")
            place = found
            for key in keys:
                place = place.setdefault(key, {})
            place[last] = jnp.asarray(value, dtype)
    return found


def flat(tree: Any, prefix: str) -> dict[str, Any]:
    """Undo `nested`."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    parts = [flat(value, f"{prefix}/{name}") for name, value in tree.items()]
    return {name: value for part in parts for name, value in part.items()}


def channels(algorithm: str, statistics: dict[str, Any]) -> Any:
    """Stack the statistics of a step; values of states stand for every action."""
    parts = [statistics[name] for name in CHANNELS[algorithm]]
    shape = np.broadcast_shapes(*(part.shape for part in parts if part.ndim > 1))
    wide = [p[:, None] if p.ndim == 1 else p for p in parts]
    return jnp.stack([jnp.broadcast_to(p, shape) for p in wide], -1)


def tolerance(name: str, npz: Npz, dtype: Any) -> Tolerance:
    """Return how far an output may be from a file's."""
    if any(word in name for word in ("action", "exploratory", "terminal")):
        return Tolerance(0.0)
    if dtype == np.float32:
        # The published rule's least probability depends on the precision.
        steep = '"wpl"' in str(npz.get("meta", "")) or name.startswith("wpl")
        loose = 1e-4 if "grad_inplace" in name else 1e-5
        return Tolerance(1e-3 if steep else loose, 1e-7)
    return Tolerance(1e-7 if "grad" in name else 1e-9, 1e-13)
