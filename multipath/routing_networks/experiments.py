"""Named experiments: the published settings, their corrected forms, and sweeps.

`corrected` settings are the last published ones with every known defect mended; the
studies on the embedded digits have settings of their own.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from multipath.routing_networks import studies
from multipath.routing_networks.algorithms import ALGORITHMS
from multipath.routing_networks.config import (
    BASELINES,
    LANGUAGE,
    VALUE_BASED,
    Config,
    storage_of,
)
from multipath.routing_networks.rows import row, without_decisions
from shared.config import Experiment

__all__ = ["EXPERIMENTS", "Config", "scaled"]

MODELS = {
    "routed": ("routed_all_fc", "the task's own agents"),
    "dispatched": ("dispatched", "agents that a dispatcher chooses"),
    "single": ("per_decision_single_agent", "one agent that sees the features"),
    "large": ("paper_large", "the task's own agents, in the network of the paper"),
}
"""Routed models: their word in the names of experiments, and what takes decisions."""


def scaled(config: Config, scale: Literal["smoke", "small", "paper"]) -> Config:
    """Shrink a run: smoke to a minute, small to minutes, paper changes nothing."""
    if scale == "paper":
        return config
    updates, rows, batch = (2000, 2000, 64) if scale == "small" else (20, 200, 16)
    return dataclasses.replace(
        config,
        updates=min(updates, config.updates or updates),
        eval_rows=min(rows, config.eval_rows or rows),
        batch=min(batch, config.batch),
    )


VALUE_RATE = 10.0
"""Learning rate of values under SGD, as a multiple of that of policies under Adam."""

WPL_RATE = 0.3
"""Learning rate of the tables of WPL, which are probabilities."""

_PUBLISHED = Config(dataset="cifar100_mtl", algorithm="wpl", compat=True)

_CORRECTED = dataclasses.replace(_PUBLISHED, compat=False, batch=64)

_BASES = {
    "cifar100-mtl": (_CORRECTED, 600.0),
    "mnist-mtl": (
        dataclasses.replace(
            _CORRECTED,
            dataset="mnist_mtl",
            balance=True,
            per_task=500,
            batch=32,
            epochs=10,
            eval_every=2,
            optimizer="adam",
            lr=3e-3,
            routing_lr=50.0,
            lr_epochs=(8,),
            lr_factors=(0.1,),
        ),
        2.0,
    ),
    "digits-mtl": (
        dataclasses.replace(
            _CORRECTED,
            dataset="digits_mtl",
            balance=True,
            epochs=50,
            eval_every=10,
            optimizer="adam",
            lr=1e-3,
            routing_lr=50.0,
            lr_epochs=(40,),
            lr_factors=(0.1,),
        ),
        1.0,
    ),
}
_BASES["digits-mtl-permuted"] = (
    dataclasses.replace(
        _BASES["digits-mtl"][0],
        dataset="digits_mtl_permuted",
        balance=False,
        epochs=15,
        eval_every=3,
        lr_epochs=(12,),
    ),
    3.0,
)
"""Settings of a data set, and minutes of one run on two cores."""


def _of(base: Config, **values: Any) -> Iterator[Config]:
    """Yield the configs of a sweep over one field."""
    ((name, options),) = values.items()
    for value in options:
        yield dataclasses.replace(base, **{name: value})


def _with(base: Config, algorithm: str) -> Config:
    """Return a config with an algorithm; tables that are no scores have other rates."""
    config = dataclasses.replace(base, algorithm=algorithm)
    if base.optimizer != "adam":
        return config
    if algorithm in VALUE_BASED:
        rate = VALUE_RATE * base.routing_lr
        return dataclasses.replace(config, routing_optimizer="sgd", routing_lr=rate)
    if algorithm == "wpl" and storage_of(config) == "tabular":
        return dataclasses.replace(config, routing_lr=WPL_RATE / base.lr)
    return config


def _told(config: Config) -> Config:
    """Return a config whose router sees the task where images do not show it."""
    return dataclasses.replace(config, tell_task=config.dataset != "cifar100_mtl")


def _rows(data: str) -> Iterator[Experiment]:
    """Yield every model with every algorithm, and the baselines, on one data set."""
    base, minutes = _BASES[data]
    for word, (model, who) in MODELS.items():
        cost = minutes * (8 if word == "large" else 1)
        wide = {"width": 320} if word == "large" else {}
        own = dataclasses.replace(base, model=model, **wide)
        own = _told(own) if word in ("dispatched", "single") else own
        for algorithm in ALGORITHMS:
            yield row(
                f"{data}-{word}-{algorithm.replace('_', '-')}",
                f"{algorithm} with {who}",
                [_with(own, algorithm)],
                cost,
                "Rosenbaum et al. (2018), section 5",
            )
        if word != "large":
            yield row(
                f"{data}-{word}-algorithms",
                f"all {len(ALGORITHMS)} algorithms with {who}",
                [_with(own, algorithm) for algorithm in ALGORITHMS],
                cost,
                "Rosenbaum et al. (2018), section 5",
            )
    still = [without_decisions(base, m) for m in BASELINES if m not in LANGUAGE]
    # A whole number of rows for each of the tasks.
    still = [
        dataclasses.replace(c, batch=60) if c.model == "separate" else c for c in still
    ]
    for config in still:
        yield row(
            f"{data}-{config.model.replace('_', '-')}",
            f"the baseline {config.model}",
            [config],
            minutes,
            "Rosenbaum et al. (2018), section 5",
        )
    yield row(
        f"{data}-baselines",
        "all networks that take no decisions",
        still,
        minutes,
        "Rosenbaum et al. (2018), section 5",
    )


def _sweeps(data: str) -> Iterator[Experiment]:
    """Yield the sweeps over single settings on one data set."""
    plain, minutes = _BASES[data]
    base, value = _with(plain, "wpl"), _with(plain, "advantage")
    aware = _told(
        dataclasses.replace(
            plain, algorithm="actor_critic", model="per_decision_single_agent"
        )
    )
    falling = [
        dataclasses.replace(value, exploration=e, exploration_end=end)
        for e in (0.01, 0.1, 0.3)
        for end in (e, 0.0)
    ]
    sweeps: dict[str, tuple[str, Sequence[Config]]] = {
        "rho": (
            "weights of the collaboration reward",
            list(_of(base, rho=(0.0, 0.1, 0.3, 0.5, 1.0))),
        ),
        "modules": (
            "numbers of modules in a layer",
            list(_of(base, modules=(2, 5, 10, 20))),
        ),
        "routing-lr": (
            "learning rates of decisions against that of modules",
            list(_of(aware, routing_lr=[plain.routing_lr * k for k in _RATIOS])),
        ),
        "exploration": ("exploration, constant and falling to 0", falling),
        "final-reward": (
            "negative losses against 1 and -1 as the final reward",
            list(_of(base, final_reward=("neg_loss", "correct"))),
        ),
        "depth": ("one to three routed layers", list(_of(base, depth=(1, 2, 3)))),
        "detach": (
            "routers that leave the layers below alone, and that do not",
            list(_of(aware, detach=(True, False))),
        ),
        "tasks": (
            "numbers of tasks, for the cost of each",
            list(_of(base, tasks=(2, 5, 10))),
        ),
        "remedies": (
            "what keeps a router from collapsing",
            [
                dataclasses.replace(aware, **({"history": "zero"} | remedy))
                for remedy in (
                    {},
                    {"entropy_bonus": 0.1},
                    {"balance_loss": 0.1},
                    {"z_loss": 0.01},
                    {"history": "collaboration"},
                    {"routing_from": 2},
                    {"temper": True, "exploration": 1.0, "exploration_end": 0.1},
                )
            ],
        ),
    }
    for word, (summary, configs) in sweeps.items():
        yield row(f"{data}-{word}", summary, configs, minutes, "docs/routing.md")


_RATIOS = (0.1, 1 / 3, 1.0, 10 / 3, 10.0)


def _presets() -> Iterator[Experiment]:
    """Yield the published settings, revision by revision, and their corrected form."""
    old = dataclasses.replace(
        _PUBLISHED,
        labels="mod5",
        standardise=False,
        valid_fraction=0.0,
        clip_over="modules",
    )
    slow = {"lr_epochs": (5, 10), "lr_factors": (0.1, 0.01)}
    first = dataclasses.replace(
        old, final_reward="correct", lr=1e-2, routing_lr=1.0, **slow
    )
    rows = {
        "upstream-default": ("the settings of version 0.4.1", old),
        "upstream-2018": ("the settings of versions 0.1 and 0.2", first),
        "upstream-adam": (
            "the settings of December 2018: Adam for modules, SGD for decisions",
            dataclasses.replace(
                first,
                batch=64,
                optimizer="adam",
                routing_optimizer="sgd",
                routing_lr=0.1,
                lr_epochs=(10, 20),
                clip=50.0,
                width=64,
                rho=0.1,
            ),
        ),
        "early": (
            "the settings of June 2018: cross-entropy, no clipping",
            dataclasses.replace(
                first,
                batch=64,
                lr_epochs=(10, 20, 40),
                lr_factors=(0.1, 0.03, 0.01),
                clip=0.0,
                width=64,
                rho=1.0,
                module_loss="cross_entropy",
            ),
        ),
        "corrected": ("version 0.4.1 with its defects mended", _CORRECTED),
    }
    for word, (summary, config) in rows.items():
        yield row(
            f"cifar100-mtl-{word}", summary, (config,), 600.0, "the published program"
        )


EXPERIMENTS = {
    experiment.name: experiment
    for rows in (
        *(_rows(data) for data in _BASES),
        *(_sweeps(data) for data in ("cifar100-mtl", "mnist-mtl", "digits-mtl")),
        _presets(),
        studies.conflict(),
        studies.language(),
    )
    for experiment in rows
}
