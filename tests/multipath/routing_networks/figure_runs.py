"""Runs with made-up records, for figures to be drawn from."""

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multipath.routing_networks.config import Config
from multipath.routing_networks.figures.records import ONE_VERSUS_REST
from shared import config as configs
from shared import runs

ROUTED = Config(dataset="digits_mtl", algorithm="wpl", depth=2)
SHARED = Config(dataset="digits_mtl", model="shared", algorithm="")
EPOCHS = (0, 1, 2)
TASKS = {
    "digits_mtl": 10,
    "cifar100_mtl": 20,
    "mnist_mtl": 10,
    "conflict": 4,
    "scan": 3,
}


def changed(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, **changes)


def written(
    root: Path,
    members: Sequence[Config],
    experiment: str = "test",
    epochs: Sequence[int] = EPOCHS,
) -> Path:
    """Write a finished run, of several members if there are several configs."""
    listed = [configs.to_dict(member) for member in members]
    many = listed if len(listed) > 1 else None
    run = runs.create(root, "routing", experiment, listed[0], {}, members=many)
    with run:
        for index, config in enumerate(members):
            for epoch in epochs:
                run.log(100 * epoch, record(config, epoch), index)
    return run.path


def tasks(config: Config) -> int:
    return config.tasks or TASKS[config.dataset]


def accuracy(config: Config, epoch: int) -> float:
    """Return an accuracy that rises, and differs by a bit from seed to seed."""
    # Some difference between networks that is the same in every process.
    kind = zlib.crc32(f"{config.algorithm} {config.model}".encode()) % 100 / 1000
    rise = 0.2 * np.exp(-epoch / 3)
    return 0.85 - kind - 0.1 * config.rho - rise + 0.01 * (config.seed - 2)


def record(config: Config, epoch: int) -> dict[str, Any]:
    """Return what training logs after an epoch."""
    count = tasks(config)
    seconds = 5 + 2.0 * epoch * count
    found: dict[str, Any] = {"epoch": float(epoch), "batch/reward": -1.0}
    for part in ("train", "test"):
        made = routes(config, epoch) if config.algorithm else {}
        if config.dataset == "conflict":
            made["error"] = 1 - accuracy(config, epoch)
        else:
            offsets = np.linspace(-0.05, 0.05, count)
            own = accuracy(config, epoch) + offsets
            plain = own + 0.1 * (config.dataset in ONE_VERSUS_REST)
            made |= {"accuracy": plain.mean(), "task_accuracy": plain}
            made |= {"balanced_accuracy": own.mean(), "task_balanced_accuracy": own}
        if config.model == "recursive":
            made |= steps(config)
        found |= {f"{part}/{k}": np.asarray(v).tolist() for k, v in made.items()}
    return {**found, "seconds": seconds}


def steps(config: Config) -> dict[str, np.ndarray]:
    """Return routes by group: half of what goes on stops, the rest takes module 1."""
    sizes = {"tasks": 3, "marks": 6, "lengths": 4}
    shares = np.eye(3)[[0, 2]].mean(0)
    return {
        f"{name}/routes": np.broadcast_to(shares, (size, config.depth, 3))
        for name, size in sizes.items()
    }


def names(config: Config) -> list[str]:
    """Return the decisions of a network."""
    if config.model == "recursive":
        return ["decision"]
    own = [f"decision{i}" for i in range(config.depth)]
    return ["dispatcher", *own] if config.model == "dispatched" else own


def use(config: Config, epoch: int, index: int) -> np.ndarray:
    """Return shares by task: alike at first, then each task with its own module."""
    count = tasks(config)
    actions = config.modules or count
    kind = zlib.crc32(config.algorithm.encode()) % 1000
    rng = np.random.default_rng([config.seed, index, kind])
    favourite = rng.integers(0, max(actions * 2 // 3, 1), count)
    liking = np.arange(actions) == favourite[:, None]
    weights = np.exp(1.5 * epoch * liking + 0.3 * rng.standard_normal(liking.shape))
    return weights / weights.sum(1, keepdims=True)


def routes(config: Config, epoch: int) -> dict[str, Any]:
    """Return what is measured of decisions that take no notice of each other."""
    found, last = {}, None
    for index, name in enumerate(names(config)):
        shares = use(config, epoch, index)
        overall = shares.mean(0)
        found |= {
            f"{name}/use": shares,
            f"{name}/modules": np.exp(-np.sum(overall * np.log(overall))),
            f"{name}/agreement": shares.max(1).mean(),
            f"{name}/depth": 2.5 if config.model == "recursive" else 1.0,
            f"{name}/policy": shares,
            f"{name}/entropy": -np.mean(np.sum(shares * np.log(shares), 1)),
        }
        if last is not None:
            before, flow = last[1], np.mean(last[1][:, :, None] * shares[:, None], 0)
            assert np.allclose(flow.sum(1), before.mean(0))
            found[f"{last[0]}-{name}/flow"] = flow
        last = (name, shares)
    # As compiled programs return them, in the order of the alphabet.
    return dict(sorted(found.items()))
