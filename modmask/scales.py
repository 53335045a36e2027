"""Smaller scales of the experiments, to try them in minutes on a CPU."""

import dataclasses
from typing import Any, Literal, NamedTuple

from modmask.config import Config

LARGEST_MASK_LR = 0.03
"""What `scaled` raises the learning rate of masks to, at most."""


class Size(NamedTuple):
    """How far a scale shrinks the runs of one kind.

    Attributes:
        steps: updates of the weights, at most.
        mask_steps: updates of each mask, at most.
        divide: what widths are divided by.
        least: the smallest width that this leaves.
        batch: rows of a batch, at most.
        layers: encoder and decoder layers, at most.
        set: fields that take another value.
    """

    steps: int
    mask_steps: int
    divide: int = 1
    least: int = 16
    batch: int = 128
    layers: int = 2
    set: dict[str, Any] = {}


_KINDS = {
    "tuple": "arithmetic",
    "tuple_ff": "arithmetic",
    "tuple_ff_copyweight": "arithmetic",
    "addmul": "arithmetic",
    "addmul_ff": "arithmetic",
    "scan": "scan",
    "trafo_scan": "trafo_scan",
    "permuted_mnist": "transfer",
    "deepmind_math": "math",
}

_FAST = {"dropout": 0.0, "lr": 3e-3, "lr_steps": (2250,)}
"""Learns SCAN in 3,000 steps: no noise, and a drop of the rate that ends the rest."""

SIZES: dict[str, dict[str, Size]] = {
    "small": {
        "arithmetic": Size(1500, 1500, 8, 64, set={"digits": 1}),
        "scan": Size(3000, 1000, 2, 64, set=_FAST),
        "trafo_scan": Size(3000, 1000, 2, 64, layers=1, set=_FAST),
        "images": Size(1000, 400, set={"resnet_depth": 14}),
        "transfer": Size(1000, 1000, 8, 32),
        "math": Size(
            2000, 1000, 8, 64, 64, set={"heads": 4, "lr": 1e-3, "math_items": 20_000}
        ),
    },
    "smoke": {
        "arithmetic": Size(150, 100, 32, 16, set={"digits": 1}),
        "scan": Size(60, 100, 16, 16, 32, set={"dropout": 0.0}),
        "trafo_scan": Size(60, 100, 8, 16, 32, 1),
        "images": Size(40, 100, batch=16, set={"resnet_depth": 8, "data_limit": 1000}),
        "transfer": Size(250, 250, 32, 16, 32, set={"data_limit": 1000}),
        "math": Size(
            40, 100, 16, 16, 32, 1, set={"heads": 4, "lr": 1e-3, "math_items": 2000}
        ),
    },
}
"""The sizes of a scale, by kind of task."""

_EVALUATIONS = {"small": 5, "smoke": 1}
_VALID = {"small": 2000, "smoke": 500}


def scaled(config: Config, scale: Literal["smoke", "small", "paper"]) -> Config:
    """Shrink an experiment: smoke takes a minute, small minutes, paper changes nothing.

    Steps and widths shrink, and with the steps all that is counted in them: warm-ups,
    decays and evaluations. The learning rate of masks rises by what their steps lose,
    to 0.03 at most, so that an unused logit can still fall from 2 to 0; that of the
    transfer task stays, as it trains the weights too. Each logit is pushed down as
    before, by mask_loss_weight / batch_size.
    """
    if scale == "paper":
        return config
    size = SIZES[scale][_KINDS.get(config.task, "images")]
    steps = min(config.steps, size.steps)
    mask_steps = min(config.mask_steps, size.mask_steps)
    weights = lambda count: _ceil(count * steps, config.steps)
    masks = lambda count: _ceil(count * mask_steps, config.mask_steps)
    often = max(weights(config.eval_every), _ceil(steps, _EVALUATIONS[scale]))
    changes: dict[str, Any] = dict(
        steps=steps,
        mask_steps=mask_steps,
        mask_lr=_mask_lr(config, mask_steps),
        mask_warmup=masks(config.mask_warmup),
        mask_patience=masks(config.mask_patience),
        lr_warmup=weights(config.lr_warmup),
        lr_steps=tuple(map(weights, config.lr_steps)),
        tuple_delay=weights(config.tuple_delay),
        eval_every=often if config.eval_every else 0,
        checkpoint_every=weights(config.checkpoint_every),
        **_narrower(config, size),
        **_smaller_batches(config, size),
        valid_limit=_VALID[scale],
    )
    return dataclasses.replace(config, **{**changes, **size.set})


def _ceil(number: int, divisor: int) -> int:
    """Divide and round up: what is counted in steps never becomes 0, which is off."""
    return -(-number // divisor)


def _mask_lr(config: Config, mask_steps: int) -> float:
    if config.task == "permuted_mnist":
        return config.mask_lr
    raised = config.mask_lr * config.mask_steps / mask_steps
    return max(config.mask_lr, min(LARGEST_MASK_LR, raised))


def _narrower(config: Config, size: Size) -> dict[str, Any]:
    """Return the widths and depths of a smaller network."""
    shrink = lambda width: min(width, max(size.least, width // size.divide))
    return {
        "layer_sizes": tuple(map(shrink, config.layer_sizes)),
        # A width of 16 or more in steps of 16 can be shared out over all heads.
        "state_size": max(16, shrink(config.state_size) // 16 * 16),
        "encoder_layers": min(config.encoder_layers, size.layers),
        "decoder_layers": min(config.decoder_layers, size.layers),
    }


def _smaller_batches(config: Config, size: Size) -> dict[str, Any]:
    """Return batches of at most so many rows, with as strong a penalty per logit."""
    samples = config.mask_samples
    limit = max(samples, size.batch // samples * samples)
    rows = min(config.batch_size, limit)
    return {
        "batch_size": rows,
        "mask_batch_size": min(config.mask_batch_size, limit),
        "mask_loss_weight": config.mask_loss_weight * rows / config.batch_size,
    }
