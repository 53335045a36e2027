"""Named experiments of modmask.

The paper is R. Csordás, S. van Steenkiste, J. Schmidhuber, "Are Neural Nets Modular?
Inspecting Functional Modularity Through Differentiable Weight Masks", ICLR 2021 (arXiv
2010.02066). Its sweeps are here by their published names; where a sweep varies a
setting, the experiment has a member for each value, and repetitions come from seeds.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from modmask.config import Config
from modmask.scales import scaled
from shared.config import Experiment

__all__ = ["ALPHAS", "DATA", "EXPERIMENTS", "OF_TASK", "Config", "make", "scaled"]

ALPHAS = (
    *(1e-5, 1.5e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5, 7e-5, 8e-5, 9e-5),
    *(1e-4, 1.1e-4, 1.25e-4, 1.5e-4, 1.75e-4, 2e-4, 2.5e-4),
    *(3e-4, 4e-4, 5e-4, 6e-4, 7e-4, 8e-4, 9e-4, 1e-3),
)
"""Mask loss weights of the sensitivity study."""

DATA = {
    "tuple": "generated",
    "tuple_ff": "generated",
    "tuple_ff_copyweight": "generated",
    "addmul": "generated",
    "addmul_ff": "generated",
    "scan": "scan",
    "trafo_scan": "scan",
    "cifar10_class_removal": "cifar10",
    "cifar10_resnet_class_removal": "cifar10",
    "cifar10_mask_stability": "cifar10",
    "cifar10_grad_cosine": "cifar10",
    "permuted_mnist": "mnist",
    "deepmind_math": "mathematics",
}
"""The data set of each task."""

OF_TASK: dict[str, dict[str, Any]] = {
    "trafo_scan": {"dropout": 0.1},
    "cifar10_resnet_class_removal": {"clip_weights": False},
    "permuted_mnist": {"mask_samples": 8},
    "deepmind_math": {
        "dropout": 0.1,
        "mask_samples": 8,
        "adam_b2": 0.995,
        "adam_eps": 1e-9,
        "tied_embeddings": True,
    },
}
"""Settings of a task that are no options in the published program."""


def _row(
    name: str,
    summary: str,
    configs: Config | tuple[Config, ...],
    minutes: int,
    reference: str = "sweep of the published program",
) -> Experiment:
    configs = configs if isinstance(configs, tuple) else (configs,)
    return Experiment(name, summary, configs, DATA[configs[0].task], reference, minutes)


def make(task: Any, **changes: Any) -> Config:
    """Return a config of a task, with the settings that belong to it."""
    return Config(task=task, **{**OF_TASK.get(task, {}), **changes})


def _arithmetic(task: str, **changes: Any) -> Config:
    """Two digits, 20,000 steps for the weights and for each mask, no bias masks."""
    settings = {"steps": 20_000, "mask_steps": 20_000, "mask_biases": False}
    return make(task, **{**settings, **changes})


def _modes(**changes: Any) -> tuple[Config, ...]:
    return tuple(
        _arithmetic("tuple", state_size=256, tuple_mode=mode, **changes)
        for mode in ("only_one_io", "together")
    )


def _addmul_table() -> Iterator[Experiment]:
    """Addition or multiplication of two numbers, as a bit of the input says."""
    layers = lambda *sizes, **more: _arithmetic("addmul_ff", layer_sizes=sizes, **more)
    wide = lambda width, **more: layers(width, width, width, width, **more)
    yield _row(
        "addmul_feedforward",
        "add or multiply, feed-forward 800x4 and 400,400,200",
        (wide(800), layers(400, 400, 200)),
        130,
    )
    for name, width, minutes in (("big", 2000, 400), ("huge", 4000, 1600)):
        yield _row(
            f"addmul_feedforward_{name}",
            f"add or multiply, feed-forward {width}x4",
            wide(width),
            minutes,
        )
    yield _row(
        "addmul_ff_alpha_analysis",
        "sensitivity to the mask loss weight, feed-forward 800x4 and 2000x4",
        tuple(
            wide(width, mask_loss_weight=weight)
            for width in (800, 2000)
            for weight in ALPHAS
        ),
        12_500,
    )
    yield _row(
        "addmul_rnn",
        "add or multiply, LSTM 2x256",
        _arithmetic("addmul", state_size=256),
        140,
    )


def _tuple_table() -> Iterator[Experiment]:
    """Two additions at once, of two pairs of numbers."""
    yield _row(
        "tuple_rnn",
        "two additions, LSTM 2x256, pairs one by one and together",
        _modes(),
        540,
    )
    yield _row(
        "tuple_rnn_first_full_mask",
        "tuple_rnn, inverse test with the control's mask at inputs and outputs",
        _modes(inverse_io="fullmask"),
        540,
    )
    big = _arithmetic("tuple_ff", layer_sizes=(2000,) * 4, mask_loss_weight=4e-4)
    variants: dict[str, tuple[str, dict[str, Any], int]] = {
        "big": ("2000x4", {}, 800),
        "big_first_full_mask": (
            "2000x4, inverse test with the control's mask at inputs and outputs",
            {"inverse_io": "fullmask"},
            800,
        ),
        "big_copyweight": (
            "2000x4, both computed by the same weights",
            {"task": "tuple_ff_copyweight"},
            800,
        ),
        "small_halfmask": ("800x4", {"layer_sizes": (800,) * 4}, 220),
    }
    for name, (network, changes, minutes) in variants.items():
        yield _row(
            f"tuple_feedforward_{name}",
            f"two additions, feed-forward {network}",
            dataclasses.replace(big, **changes),
            minutes,
        )


def _scan_table() -> Iterator[Experiment]:
    """Commands to be translated to actions."""
    common: dict[str, Any] = {
        "steps": 25_000,
        "mask_steps": 25_000,
        "mask_biases": False,
        "batch_size": 256,
        "grad_clip": 5.0,
    }
    lstm = make("scan", state_size=200, dropout=0.5, mask_loss_weight=3e-5, **common)
    transformer = make("trafo_scan", state_size=100, mask_loss_weight=6e-4, **common)
    yield _row("scan", "SCAN, LSTM encoder-decoder 2x200", lstm, 3800)
    yield _row("trafo_scan", "SCAN, transformer of width 100", transformer, 3000)
    yield _row(
        "scan_baseline",
        "SCAN, both networks trained on the length, jump and turn_left splits",
        tuple(
            dataclasses.replace(network, scan_train_split=split, analysis=False)
            for network in (lstm, transformer)
            for split in ("length", "jump", "turn_left")
        ),
        2600,
    )


def _image_table() -> Iterator[Experiment]:
    """CIFAR-10 without one class at a time; permutations of MNIST one after another."""
    cnn = make(
        "cifar10_class_removal",
        steps=20_000,
        mask_steps=20_000,
        mask_loss_weight=3e-4,
        mask_lr=1e-3,
        keep_last_layer=True,
    )
    plain = dataclasses.replace(cnn, cnn_dropout=False)
    stability = dataclasses.replace(plain, task="cifar10_mask_stability")
    cosine = dataclasses.replace(cnn, task="cifar10_grad_cosine")
    resnet = make(
        "cifar10_resnet_class_removal",
        steps=64_000,
        mask_steps=30_000,
        optimizer="sgd",
        lr=0.1,
        lr_steps=(32_000, 48_000),
        lr_gamma=0.1,
        weight_decay=1e-4,
        mask_loss_weight=2e-5,
        mask_lr=3e-2,
        mask_batch_size=256,
        keep_last_layer=True,
    )
    yield _row("cifar10", "class removal, CNN with dropout", cnn, 670)
    yield _row("cifar10_no_dropout", "class removal, CNN without dropout", plain, 670)
    yield _row(
        "cifar10_mask_stability", "two masks of each sub-task compared", stability, 1200
    )
    yield _row("cifar10_resnet", "class removal, ResNet-110", resnet, 60_000)
    yield _row(
        "cifar10_grad_cosine",
        "gradients of the masked and the whole CNN compared",
        cosine,
        120,
        "analysis of the published program, with the settings of cifar10",
    )
    for suffix, new in (("", 2.0), ("_prefer_old", 0.0), ("_prefer_old_even_more", -1)):
        config = make(
            "permuted_mnist",
            layer_sizes=(800, 800, 64),
            lr=0.01,
            steps=30_000,
            mask_steps=30_000,
            mask_loss_weight=1.28e-3,
            transfer_new_init=float(new),
        )
        summary = f"11 permutations of MNIST, logits of unused weights from {new:g}"
        yield _row(f"transfer_sharing{suffix}", summary, config, 330)


def _math_table() -> Iterator[Experiment]:
    """Modules of the Mathematics Dataset, read letter by letter."""
    common: dict[str, Any] = {
        "state_size": 512,
        "heads": 8,
        "ff_multiplier": 4.0,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "lr": 1e-4,
        "grad_clip": 0.1,
        "mask_biases": False,
    }
    # Module, rows for weights and masks, penalty, mask_lr, steps, warm-up, evaluations.
    sweeps = {
        "add_or_sub": (
            *("arithmetic__add_or_sub", 256, 256, 2e-5, 0.03),
            *(30_000, 30_000, 0, 1000),
        ),
        "diff": (
            *("calculus__differentiate", 128, 128, 1e-5, 0.03),
            *(40_000, 40_000, 0, 5000),
        ),
        "lin1d": (
            *("algebra__linear_1d", 512, 400, 1e-6, 0.02),
            *(200_000, 50_000, 5000, 1000),
        ),
        "polycollect": (
            *("polynomials__collect", 128, 256, 1e-6, 0.02),
            *(200_000, 50_000, 5000, 1000),
        ),
        "sort": (
            *("comparison__sort", 256, 256, 3e-6, 0.03),
            *(30_000, 30_000, 0, 10_000),
        ),
    }
    fields = (
        *("math_task", "batch_size", "mask_batch_size", "mask_loss_weight"),
        *("mask_lr", "steps", "mask_steps", "lr_warmup", "eval_every"),
    )
    for name, values in sweeps.items():
        config = make(
            "deepmind_math", **common, **dict(zip(fields, values, strict=True))
        )
        summary = f"Mathematics Dataset, {config.math_task}, transformer of width 512"
        minutes = round((config.steps + 2 * config.mask_steps) * 1.4)
        yield _row(f"dm_math_{name}", summary, config, minutes)


def _reference_table() -> Iterator[Experiment]:
    """Small runs whose figures are known, and settings of one's own."""
    small: dict[str, Any] = {"digits": 1, "steps": 1500, "mask_steps": 1500}
    reference = "1 digit, 1,500 + 3 x 1,500 steps: figures in docs/results.md"
    for task in ("addmul", "tuple"):
        yield _row(
            f"reference_{task}_feedforward",
            f"{task}, 1 digit, feed-forward 200,200",
            _arithmetic(f"{task}_ff", layer_sizes=(200, 200), **small),
            1,
            reference,
        )
    modes: tuple[Any, ...] = ("together", "only_one_io")
    yield _row(
        "reference_tuple_rnn",
        "tuple, 1 digit, LSTM 2x64, pairs together and one by one",
        tuple(
            _arithmetic("tuple", state_size=64, tuple_mode=mode, **small)
            for mode in modes
        ),
        5,
        reference,
    )
    yield _row(
        "custom",
        "the defaults: for options of one's own, and sweep files of any name",
        Config(),
        200,
        "defaults",
    )


EXPERIMENTS: dict[str, Experiment] = {
    row.name: row
    for row in (
        *_addmul_table(),
        *_tuple_table(),
        *_scan_table(),
        *_image_table(),
        *_math_table(),
        *_reference_table(),
    )
}
