"""Defaults and profiles of the published program, by the names of its options."""

from typing import Any

DEFAULTS: dict[str, Any] = {
    "task": "tuple",
    "n_digits": 1,
    "stop_after": 20_000,
    "step_per_mask": 10_000,
    "lr": 1e-3,
    "mask_lr": 1e-2,
    "dm_math.tasks": "algebra__linear_1d",
}
"""Defaults of the published program that are not those of `Config`."""

_SCAN = {
    "task": "scan",
    "n_layers": 2,
    "state_size": 200,
    "lr": 1e-3,
    "grad_clip": 5.0,
    "stop_after": 15_000,
    "step_per_mask": 15_000,
    "bias_no_mask": 1,
    "batch_size": 256,
    "mask_loss_weight": 3e-5,
    "dropout": 0.5,
}

PROFILES: dict[str, dict[str, Any]] = {
    "scan": _SCAN,
    "trafo_scan": {
        **_SCAN,
        "task": "trafo_scan",
        "state_size": 100,
        "mask_loss_weight": 6e-4,
        # The published transformer has this rate whatever the profile says.
        "dropout": 0.1,
    },
    "add_mul": {
        "task": "addmul",
        "stop_after": 20_000,
        "step_per_mask": 20_000,
        "n_layers": 2,
        "state_size": 256,
        "n_digits": 2,
        "mask_loss_weight": 1e-4,
        "bias_no_mask": 1,
    },
    "tuple": {
        "task": "tuple",
        "n_digits": 2,
        "mask_lr": 0.01,
        "mask_loss_weight": 1e-4,
        "state_size": 256,
        "stop_after": 20_000,
        "step_per_mask": 20_000,
    },
    "cifar10_class_removal": {
        "task": "cifar10_class_removal",
        "stop_after": 20_000,
        "step_per_mask": 20_000,
        "mask_loss_weight": 3e-4,
        "mask_lr": 1e-3,
        "class_removal.keep_last_layer": 1,
    },
    "cifar10_resnet_hp": {
        "task": "cifar10_resnet_hp_class_removal",
        "optimizer": "sgd",
        "lr": 0.1,
        "lr_sched.steps": "32000,48000",
        "lr_sched.gamma": 0.1,
        "wd": 1e-4,
        "batch_size": 128,
        "mask_batch_size": 256,
        "stop_after": 64_000,
        "step_per_mask": 30_000,
        "mask_loss_weight": 2e-5,
        "mask_lr": 3e-2,
        "class_removal.keep_last_layer": 1,
    },
    "deepmind_math": {
        "task": "deepmind_math",
        "state_size": 512,
        "transformer.n_heads": 8,
        "transformer.ff_multiplier": 4.0,
        "transformer.encoder_n_layers": 6,
        "transformer.decoder_n_layers": 6,
        "dropout": 0.1,
        "lr": 1e-4,
        "grad_clip": 0.1,
        "batch_size": 256,
        "stop_after": 50_000,
        "step_per_mask": 20_000,
        "mask_loss_weight": 1e-3,
        "bias_no_mask": 1,
    },
}
"""Bundles of options of the published program, by name."""
