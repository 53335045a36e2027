"""Experiments without image files: opposed linear tasks, and commands."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from multipath.routing_networks.algorithms import ALGORITHMS
from multipath.routing_networks.config import Config
from multipath.routing_networks.rows import row, without_decisions
from shared.config import Experiment

_CONFLICT = Config(
    dataset="conflict",
    valid_fraction=0.0,
    model="routed_all_fc",
    depth=1,
    storage="tabular",
    history="zero",
    batch=32,
    epochs=1,
    updates=600,
    lr=0.05,
    routing_lr=1.0,
    lr_epochs=(),
    lr_factors=(),
    exploration=0.2,
    exploration_end=0.2,
    clip=0.0,
)


def _conflict_with(
    base: Config, algorithm: str, softness: float = 0.1, **changes: Any
) -> Config:
    """Return a config; Gumbel's exploration is what makes its temperature."""
    if algorithm == "gumbel":
        changes |= {"exploration": softness, "exploration_end": softness}
    return dataclasses.replace(base, algorithm=algorithm, **changes)


def conflict() -> Iterator[Experiment]:
    """Yield the task that only routing solves, with two and with four modules."""
    for modules in (2, 4):
        base = dataclasses.replace(_CONFLICT, modules=modules)
        configs = [
            *(_conflict_with(base, algorithm) for algorithm in ALGORITHMS),
            # At the temperature 1.
            _conflict_with(base, "gumbel", 0.9 / 9.9, mode="full"),
        ]
        yield row(
            f"conflict-{modules}-algorithms",
            f"every algorithm on two pairs of opposed tasks, {modules} modules",
            configs,
            0.1,
            "small study: docs/results.md",
        )
        for config in configs:
            mode = "-full" if config.mode == "full" else ""
            word = config.algorithm.replace("_", "-") + mode
            yield row(
                f"conflict-{modules}-{word}",
                f"{word} on two pairs of opposed tasks, {modules} modules",
                (config,),
                0.1,
                "small study: docs/results.md",
            )


_SCAN = Config(
    dataset="scan",
    longest=24,
    model="recursive",
    algorithm="aac",
    depth=4,
    width=96,
    modules=4,
    history="zero",
    final_reward="correct",
    batch=128,
    epochs=15,
    eval_every=3,
    eval_rows=2000,
    optimizer="adam",
    lr=3e-3,
    routing_lr=10.0,
    lr_epochs=(10,),
    lr_factors=(0.3,),
)


def language() -> Iterator[Experiment]:
    """Yield the recursive router on commands, and what it is compared with."""
    fixed = without_decisions(_SCAN, "fixed")
    named = {
        "scan-recursive": ("a recursive router on commands", _SCAN),
        "scan-fixed": ("one module for all commands, as many parameters", fixed),
    }
    for algorithm in ALGORITHMS:
        named[f"scan-recursive-{algorithm.replace('_', '-')}"] = (
            f"a recursive router on commands, {algorithm}",
            dataclasses.replace(_SCAN, algorithm=algorithm),
        )
    for name, (summary, config) in named.items():
        yield row(name, summary, (config,), 6.0, "Cases et al. (2019)")
