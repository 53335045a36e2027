"""What the tables of experiments are made of."""

import dataclasses
from collections.abc import Sequence

from multipath.routing_networks.config import DECIDING, Config
from shared.config import Experiment


def row(
    name: str,
    summary: str,
    configs: Sequence[Config],
    minutes: float,
    reference: str,
) -> Experiment:
    """Return an experiment; `minutes` is the time of one config on two cores."""
    return Experiment(
        name=name,
        summary=summary,
        configs=tuple(configs),
        data=configs[0].dataset,
        reference=reference,
        minutes=round(minutes * len(configs), 1),
    )


def without_decisions(config: Config, model: str) -> Config:
    """Return the config of a baseline with the settings of a routed model."""
    plain = {name: getattr(Config, name) for name in DECIDING}
    return dataclasses.replace(config, **plain, model=model, algorithm="")
