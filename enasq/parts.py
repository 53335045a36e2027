"""What the settings of a run say of its parts: network, quantisers, controller, data.

All functions take a `config.Config` or its static part.
"""

from pathlib import Path
from typing import Any

from jaxtyping import Array

from enasq import cell, controller, data, policy
from enasq.augmentation import Photographs
from enasq.behaviour import Behaviour
from enasq.cell import Architecture
from enasq.plan import RULES, Network
from enasq.policy import QuantPolicy
from shared.data import batching
from shared.errors import UsageError, check_choice


def architecture(config: Any) -> Architecture:
    """Return the architecture of a config of task fixed."""
    ops = 5 * max(len(config.choices), 1)
    blocks = config.blocks or None
    return cell.parse(config.architecture, ops=ops, blocks=blocks)


def positions(config: Any) -> str | tuple[int, ...]:
    """Return which cells reduce, as `Network` takes it."""
    given = config.pool_positions
    if len(given) == 1 and given[0] in RULES:
        return given[0]
    if not all(place.isdigit() for place in given):
        check_choice("pool_positions", " ".join(given), (*RULES, "numbers of cells"))
    return tuple(map(int, given))


def network(
    config: Any, kind: str, shape: tuple[int, int, int], classes: int
) -> Network:
    """Return the shape of a network.

    Args:
        config: the settings.
        kind: search or fixed.
        shape: height, width and channels of an image.
        classes: of the set.

    Raises:
        UsageError: for images that are not square, and sizes that do not divide.
    """
    height, width, channels = shape
    if height != width:
        raise UsageError("image_size", f"{height} x {width}", "square images")
    return Network(
        kind=kind,
        layers=config.layers,
        filters=config.filters,
        blocks=blocks(config),
        size=height,
        channels=channels,
        classes=classes,
        pool_positions=positions(config),
        stride_inside=config.stride_inside and kind == "search",
        aux_head=config.aux_head,
    )


def blocks(config: Any) -> int:
    """Return the blocks of a cell."""
    if config.architecture:
        return architecture(config).shape[1]
    return config.blocks or 5


def quant_policy(config: Any, *, name: str | None = None) -> QuantPolicy:
    """Return which quantiser is where.

    Args:
        config: the settings.
        name: in place of the config's policy.
    """
    found = policy.preset(
        name or config.policy,
        bits=config.bits,
        choices=() if name == "float" else config.choices,
    )
    ranged = policy.with_range(found, config.high)
    if name is None and config.high != 1 and ranged == found:
        allowed = f"1 with policy {config.policy}, whose weights have no such range"
        raise UsageError("high", config.high, allowed)
    return ranged


def behaviour(config: Any, steps: int) -> Behaviour:
    """Return what a network does beside its plan and its quantisers.

    Args:
        config: the settings.
        steps: of the whole training.
    """
    return Behaviour(
        train_aux_head=config.train_aux_head,
        rescale=config.rescale,
        head_range=config.head_range,
        keep=config.keep,
        drop_path_keep=config.drop_path_keep,
        drop_path_steps=steps,
    )


def controller_settings(config: Any) -> controller.Settings:
    """Return the controller; its numbers come from `controller_hyper`."""
    return controller.Settings(
        blocks=blocks(config),
        choices=max(len(config.choices), 1),
        hidden=config.hidden,
        layers=config.lstm_layers,
        op_bias=config.op_bias,
        # Whether there is one; how much comes traced.
        tanh_constant=0.0 if config.tanh_constant == 0 else 1.0,
        temperature=0.0 if config.temperature == 0 else 1.0,
        baseline=config.baseline,
        entropy=config.entropy,
    )


def controller_hyper(hyper: Any) -> dict[str, Array]:
    """Return the controller's numbers, from those of the whole config."""
    names = ("tanh_constant", "op_tanh_reduce", "temperature", "entropy_weight")
    return {name: hyper[name] for name in (*names, "baseline_decay")} | {
        "learning_rate": hyper["controller_lr"],
        "l2": hyper["controller_l2"],
    }


def load(config: Any, data_dir: str | Path | None) -> data.Sets:
    """Load the data of a config, or of its static part.

    Raises:
        UsageError: see `data.load`; also for a search without validation images.
    """
    places = {
        name: getattr(config, f"{name}_dir")
        for name in ("train", "valid", "test")
        if getattr(config, f"{name}_dir")
    }
    # Networks that read bytes are trained on the numbers that they will get.
    image_bits = quant_policy(config).image_bits
    sets = data.load(
        config.dataset,
        data_dir,
        image_size=config.image_size or None,
        channels=config.channels or None,
        valid=None if config.valid_size < 0 else config.valid_size,
        inputs="fixed" if image_bits else "standard",
        copies=config.copies,
        split_dirs=places or None,
        compat=config.compat,
    )
    if config.task != "fixed":
        data.check_search(sets)
    return sets


def batches(config: Any, sets: data.Sets) -> batching.Batches:
    """Return how training batches are drawn, changed as the config says."""
    photographs = Photographs(
        config.crop, config.flip, config.cutout, config.cutout_anchor
    )
    return data.batches(
        sets, config.batch_size, change=config.augment, photographs=photographs
    )


def total_steps(config: Any, per_epoch: int) -> int:
    """Return the updates of a whole training."""
    return config.steps or config.epochs * per_epoch
