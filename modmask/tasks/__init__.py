"""The tasks by name."""

import importlib
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from modmask.config import Config
from modmask.task import Problem
from modmask.tasks import samplers
from shared.data import batching

MODULES = {
    "tuple": "pairs",
    "tuple_ff": "pairs",
    "tuple_ff_copyweight": "pairs",
    "addmul": "addmul",
    "addmul_ff": "addmul",
    "scan": "scan",
    "trafo_scan": "scan",
    "cifar10_class_removal": "images",
    "cifar10_resnet_class_removal": "images",
    "cifar10_mask_stability": "images",
    "cifar10_grad_cosine": "images",
    "permuted_mnist": "images",
    "deepmind_math": "mathematics",
}


def load(config: Config, data_dir: str | Path | None = None) -> Problem:
    """Return network, data and sub-tasks of a config's task.

    Raises:
        UsageError: for data that are missing or not what they should be.
    """
    module: Any = importlib.import_module(f"modmask.tasks.{MODULES[config.task]}")
    problem = module.load(config, data_dir)
    if config.valid_limit:
        limited = lambda arrays: _sample(arrays, config.valid_limit)
        valid = {name: limited(arrays) for name, arrays in problem.valid.items()}
        problem = problem._replace(valid=valid)
    return problem


def _sample(arrays: PyTree, limit: int) -> PyTree:
    """Return some rows, always the same: data may be sorted."""
    rows = samplers.subset(batching.rows(arrays), limit)
    return jax.tree.map(lambda a: a[rows], arrays)
