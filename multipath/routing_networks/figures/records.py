"""Trained networks as run directories hold them, sorted into the lines of figures."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from shared import plotting, trained
from shared.plotting import NothingToDraw

ALGORITHMS = {
    "reinforce": "REINFORCE",
    "reinforce_bl1": "REINFORCE, baseline 1",
    "reinforce_bl2": "REINFORCE, baseline 2",
    "egreedy_reinforce": "ε-greedy REINFORCE",
    "qlearning": "Q-learning",
    "sarsa": "SARSA",
    "actor_critic": "actor-critic",
    "aac": "AAC",
    "bootstrap_aac": "bootstrap AAC",
    "egreedy_aac": "ε-greedy AAC",
    "advantage": "advantage learning",
    "bootstrap_advantage": "bootstrap advantage",
    "surprise": "surprise learning",
    "wpl": "WPL",
    "gumbel": "Gumbel-softmax",
    "relax": "RELAX",
}
"""Algorithms in the order of legends."""

MODELS = {
    "routed_all_fc": "agents by task",
    "dispatched": "agents by dispatcher",
    "per_decision_single_agent": "one agent",
    "paper_large": "agents by task, large",
    "recursive": "recursive router",
    "per_task_all_fc": "layers by task",
    "per_task_1_fc": "last layer by task",
    "shared": "shared",
    "shared_one_hot": "shared, task as input",
    "separate": "separate networks",
    "soft_mixture": "soft mixture",
    "cross_stitch": "cross-stitch",
    "fixed": "one module",
}
"""Routed models, then baselines, in the order of legends."""

ONE_VERSUS_REST = ("mnist_mtl", "digits_mtl")
"""Data on which a constant answer is right nine times in ten."""

PLACE = ("dataset", "model")

# What says nothing about learning.
_NOT_IN_LABELS = (
    *("seed", "algorithm", "epochs", "updates"),
    *("eval_every", "eval_rows", "checkpoint_every"),
)

WORDS = {
    "rho": "reward weight ρ",
    "modules": "modules in a layer",
    "tasks": "tasks",
    "depth": "layers",
    "width": "units of a layer",
    "routing_lr": "rate of decisions / rate of modules",
    "exploration": "exploration",
    "exploration_end": "exploration at the end",
    "final_reward": "final reward",
    "entropy_bonus": "entropy bonus",
    "balance_loss": "balance loss",
    "z_loss": "z-loss",
    "history": "reward of actions",
    "routing_from": "decisions learn from epoch",
    "temper": "tempered",
}
"""Settings in figures; others are called by their names."""

# What 0 means.
_ALL = {
    "tasks": "all tasks",
    "modules": "as many modules as tasks",
    "agents": "as many agents as tasks",
}

Config = dict[str, Any]
Record = dict[str, Any]


class Score(NamedTuple):
    """What says how good a network is.

    Attributes:
        name: in records, without the set.
        label: with its unit.
        unit: what 1 is drawn as.
    """

    name: str
    label: str
    unit: float = 1.0


ACCURACY = Score("accuracy", "accuracy (%)", 100.0)
BALANCED = Score("balanced_accuracy", "balanced accuracy (%)", 100.0)
ERROR = Score("error", "relative squared error")


def score(config: Config) -> Score:
    """Return what the networks of a data set are judged by."""
    if config["dataset"] == "conflict":
        return ERROR
    return BALANCED if config["dataset"] in ONE_VERSUS_REST else ACCURACY


def is_routed(config: Config) -> bool:
    """Whether a network takes decisions."""
    return bool(config["algorithm"])


def having(
    members: Sequence[trained.Trained], pattern: str, what: str
) -> list[trained.Trained]:
    """Return the members with a record of something.

    Args:
        members: trained networks.
        pattern: regular expression of a whole name.
        what: it is, in words.

    Raises:
        NothingToDraw: if there is none.
    """
    matches = re.compile(pattern).fullmatch
    found = [m for m in members if any(matches(k) for r in m.records for k in r)]
    if not found:
        raise NothingToDraw(f"no record of {what}")
    return found


def last(member: trained.Trained, name: str) -> Any:
    """Return the last value of a record, None if there is none."""
    return next((r[name] for r in reversed(member.records) if name in r), None)


def by_label(
    members: Sequence[trained.Trained], shown: Sequence[str] = ()
) -> dict[str, list[trained.Trained]]:
    """Group members under short names: the algorithm, and what else tells them apart.

    Args:
        members: trained networks.
        shown: settings that the figure shows in another way.
    """
    heads: dict[tuple[str, ...], list[trained.Trained]] = {}
    for member in sorted(members, key=_order):
        apart = [str(member.config[field]) for field in shown]
        heads.setdefault((_head(member.config), *apart), []).append(member)
    groups: dict[str, list[trained.Trained]] = {}
    for (head, *_), own in heads.items():
        # Places first: what differs between them is no difference within one.
        fields = trained.telling_fields(
            [m.config for m in own], first=PLACE, ignore=_NOT_IN_LABELS
        )
        usual = _usual(own, fields)
        for member in own:
            more = [
                named(field, member.config)
                for field in fields
                if member.config[field] != usual.get(field)
            ]
            groups.setdefault(", ".join([head, *more]), []).append(member)
    return groups


def _usual(members: Sequence[trained.Trained], fields: Sequence[str]) -> Config:
    """Return what goes without saying where many settings differ: the common value."""
    others = [field for field in fields if field not in PLACE]
    if len(others) < 3:
        return {}
    values = {field: [m.config[field] for m in members] for field in others}
    return {field: max(found, key=found.count) for field, found in values.items()}


def named(field: str, config: Config) -> str:
    """Write a setting in words."""
    value = config[field]
    if field == "algorithm":
        return _head(config)
    if field == "model":
        return MODELS.get(str(value), str(value))
    if field == "dataset":
        return value
    if value == 0 and field in _ALL:
        return _ALL[field]
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value)) or "none"
    text = f"{value:g}" if isinstance(value, float) else str(value) or "default"
    return f"{WORDS.get(field, field)} {text}"


def _head(config: Config) -> str:
    # What the tables do not have is called by its name in the config.
    rule, model = str(config["algorithm"]), str(config["model"])
    return ALGORITHMS.get(rule, rule) if rule else MODELS.get(model, model)


def _order(member: trained.Trained) -> tuple[int, int]:
    """Return where a member stands: what the tables do not have comes last."""
    rule, model = member.config["algorithm"], member.config["model"]
    # Baselines come after all algorithms.
    first = [*ALGORITHMS, rule].index(rule) if rule else len(ALGORITHMS) + 1
    return first, [*MODELS, model].index(model)


def places(members: Sequence[trained.Trained]) -> dict[str, list[trained.Trained]]:
    """Group members by data set and routed model; baselines stand beside each."""
    found: dict[tuple[str, str], list[trained.Trained]] = {}
    baselines: dict[str, list[trained.Trained]] = {}
    for member in sorted(members, key=_order):
        dataset, model = (member.config[field] for field in PLACE)
        if is_routed(member.config):
            found.setdefault((dataset, model), []).append(member)
        else:
            baselines.setdefault(dataset, []).append(member)
    for dataset, own in baselines.items():
        keys = [key for key in found if key[0] == dataset] or [(dataset, "")]
        for key in keys:
            found.setdefault(key, []).extend(own)
    titles = {key: f"{key[0]}: {MODELS.get(key[1], 'baselines')}" for key in found}
    return {titles[key]: own for key, own in found.items()}


def series(
    members: Sequence[trained.Trained], name: str, entry: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return epochs, mean and standard deviation over members of one metric.

    Members that stopped early drop out where they end.

    Args:
        members: repetitions.
        name: of the metric.
        entry: of a metric that is a list.
    """
    values: dict[float, list[float]] = {}
    for member in members:
        for record in member.records:
            if name in record:
                value = record[name] if entry is None else record[name][entry]
                values.setdefault(record["epoch"], []).append(value)
    epochs = sorted(values)
    columns = [np.asarray(values[e]) for e in epochs]
    mean, sd = [c.mean() for c in columns], [c.std() for c in columns]
    return np.array(epochs), np.array(mean), np.array(sd)


def decisions(record: Record, prefix: str = "test/") -> list[str]:
    """Return the names of the decisions in the order in which they are taken."""
    found = [k.removeprefix(prefix).removesuffix("/use") for k in record]
    found = [n for k, n in zip(record, found, strict=True) if k == f"{prefix}{n}/use"]
    # By number: decision10 comes after decision9.
    parts = lambda name: [p.zfill(9) for p in re.split(r"(\d+)", name)]
    dispatching = lambda name: name != "dispatcher"
    return sorted(found, key=lambda name: (dispatching(name), parts(name)))


def at_end(member: trained.Trained) -> Record:
    """Return the last record of a test set."""
    ends = (r for r in reversed(member.records) if any(k[:5] == "test/" for k in r))
    return next(ends, {})


def first_end(members: Sequence[trained.Trained]) -> Record:
    """Return the last record of the first seed that has one of a test set."""
    ends = [at_end(m) for m in sorted(members, key=lambda m: m.config["seed"])]
    return next(filter(None, ends))


def colours(count: int) -> list[str]:
    """Return colours that can be told apart, for up to twenty things."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if count <= len(plotting.PALETTE):
        return list(plotting.PALETTE[:count])
    if count > 20:
        return [to_hex(colormaps["hsv"](i / count)) for i in range(count)]
    # Strong ones first, then their pale partners.
    order = (*range(0, 20, 2), *range(1, 20, 2))
    return [to_hex(colormaps["tab20"](i)) for i in order[:count]]
