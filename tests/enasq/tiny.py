"""A search and a training of a few updates on digits."""

import dataclasses

from enasq import train
from enasq.config import Config
from shared import runs
from tests import tiny_runs

SEARCH = Config(
    dataset="digits",
    valid_size=100,
    layers=0,
    blocks=1,
    filters=2,
    pool_positions=("0",),
    batch_size=512,
    controller_updates=2,
    controller_samples=3,
    candidates=3,
    hidden=8,
    budget_of="bits",
    budget=3500.0,
    epochs=2,
    log_every=1,
)
"""Two updates are an epoch, after which the controller makes two as well."""

ARC = "0 0 1 3 | 1 1 0 4"
FIXED = dataclasses.replace(
    SEARCH,
    task="fixed",
    architecture=ARC,
    blocks=0,
    budget_of="none",
    budget=0.0,
    aux_head=True,
    drop_path_keep=0.8,
    keep=0.9,
)


def new_run(folder, config) -> runs.Run:
    """Create the run directory of one config."""
    return tiny_runs.create(folder, "enasq", (config,))


def go(run, config, **options):
    """Train one config in a run directory."""
    return train.train((config,), run=run, progress=False, **options)
