"""Runs with made-up statistics, for figures to be drawn from."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multipath.trees.config import Config, network
from multipath.trees.graph import layout
from shared import config as configs
from shared import runs

ARCH = ("2,2", "2", "2")
ACTOR = Config(dataset="hybrid", arch=ARCH, n_iter=4000, t_log=2000)
STATIC = dataclasses.replace(ACTOR, family="sr")
CRITIC = dataclasses.replace(ACTOR, family="critic", tau=0.1)
PRICES = (0.0, 1e-9, 2e-9)
CLASSES = 10


def changed(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, **changes)


def statics(base: Config = STATIC) -> list[Config]:
    """Return static nets of all depths."""
    depths = range(1, len(base.arch) + 1)
    return [changed(base, depth=depth) for depth in depths]


def priced(base: Config = ACTOR, prices: Sequence[float] = PRICES) -> list[Config]:
    """Return a network for each price."""
    return [changed(base, k_cpt=price) for price in prices]


def written(
    root: Path, members: Sequence[Config], steps: Sequence[int] = (2000, 4000)
) -> Path:
    """Write a finished run, of several members if there are several configs."""
    listed = [configs.to_dict(member) for member in members]
    many = listed if len(listed) > 1 else None
    run = runs.create(root, "trees", "test", listed[0], {}, members=many)
    with run:
        for index, config in enumerate(members):
            for step in steps:
                run.log(step, record(config, step), index)
    return run.path


def record(config: Config, step: int) -> dict[str, Any]:
    """Return what training logs at a step."""
    prices = config.k_cpts if config.dyn_k_cpt else (config.k_cpt,)
    found: dict[str, Any] = {"train/loss": 1.0}
    for part in ("train", "test"):
        for i, price in enumerate(prices):
            within = f"k{i}/" if config.dyn_k_cpt else ""
            for name, value in statistics(config, price, step).items():
                found[f"{part}/{within}{name}"] = value
    return found


def shares(config: Config, price: float, step: int) -> np.ndarray:
    """Return the share of images at each leaf: shallower for higher prices."""
    plan = layout(network(config, (64, 64, 3), CLASSES).root)
    at = [
        next(d for d, level in enumerate(plan.depths) if i in level)
        for i in plan.leaves
    ]
    deep = np.array(at, float) - 2
    liking = 0.5 * np.log(step / 1000) - np.log10(max(price, 1e-10)) - 9.2
    weights = np.exp(liking * deep - 0.05 * deep**2)
    return weights / weights.sum() / (1 if config.family != "sr" else weights.size)


def statistics(config: Config, price: float, step: int) -> dict[str, Any]:
    """Return statistics: errors fall with depth and training, and a bit by seed."""
    plan = layout(network(config, (64, 64, 3), CLASSES).root)
    here = shares(config, price, step)
    at = [
        next(d for d, level in enumerate(plan.depths) if i in level)
        for i in plan.leaves
    ]
    depth = np.array(at, float) - 1
    error = 0.08 / depth + 20 / step + 0.002 * (config.seed - 1)
    moc = float(here @ depth) * 2e6 * config.width**2 + 1e5 * (config.seed - 1)
    likes = np.exp(-0.3 * np.abs(np.arange(CLASSES) - depth[:, None] * 1.5))
    by_class = likes / likes.sum(axis=1, keepdims=True)
    found = {
        "accuracy": float(here @ (1 - error)),
        "moc": moc,
        "p_cor": here * (1 - error),
        "p_inc": here * error,
        "p_cor_by_cls": (here * (1 - error))[:, None] * by_class,
        "p_inc_by_cls": (here * error)[:, None] * by_class,
        "c_err": 3 * error,
    }
    if config.family != "sr":
        found["p_tr"] = here
    if plan.switches:
        found["x_rte"] = np.linspace(0.5, 1, len(plan.switches))
    return {name: np.asarray(value).tolist() for name, value in found.items()}
