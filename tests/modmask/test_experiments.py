"""The published sweeps have the published settings, and shrink without breaking."""

import dataclasses

import pytest

from modmask.config import TASKS, Config, rows_of_batch
from modmask.experiments import DATA, EXPERIMENTS, scaled

BIG, WIDE = (2000,) * 4, (800,) * 4
ARITHMETIC = {
    "digits": 2,
    "steps": 20_000,
    "mask_steps": 20_000,
    "mask_loss_weight": 1e-4,
    "mask_lr": 1e-2,
    "mask_biases": False,
}
ADDMUL = {**ARITHMETIC, "task": "addmul_ff"}
TUPLE = {**ARITHMETIC, "task": "tuple_ff", "mask_loss_weight": 4e-4}
LSTM = {**ARITHMETIC, "layers": 2, "state_size": 256}
MODES = ("only_one_io", "together")
SCAN = {
    "task": "scan",
    "layers": 2,
    "state_size": 200,
    "embedding_size": 16,
    "dropout": 0.5,
    "batch_size": 256,
    "grad_clip": 5.0,
    "mask_loss_weight": 3e-5,
    "mask_lr": 1e-2,
    "steps": 25_000,
    "mask_steps": 25_000,
    "mask_biases": False,
    "lr": 1e-3,
    "scan_train_split": "simple",
}
TRAFO_SCAN = {
    **SCAN,
    "task": "trafo_scan",
    "state_size": 100,
    "heads": 4,
    "ff_multiplier": 2.0,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "dropout": 0.1,
    "tied_embeddings": False,
    "mask_loss_weight": 6e-4,
}
CIFAR = {
    "task": "cifar10_class_removal",
    "cnn_dropout": True,
    "optimizer": "adam",
    "lr": 1e-3,
    "batch_size": 128,
    "mask_loss_weight": 3e-4,
    "mask_lr": 1e-3,
    "steps": 20_000,
    "mask_steps": 20_000,
    "keep_last_layer": True,
    "mask_biases": True,
}
RESNET = {
    "task": "cifar10_resnet_class_removal",
    "resnet_depth": 110,
    "optimizer": "sgd",
    "lr": 0.1,
    "lr_steps": (32_000, 48_000),
    "lr_gamma": 0.1,
    "weight_decay": 1e-4,
    "batch_size": 128,
    "clip_weights": False,
    "grad_clip": 1.0,
    "mask_loss_weight": 2e-5,
    "mask_lr": 3e-2,
    "steps": 64_000,
    "mask_steps": 30_000,
    "mask_batch_size": 256,
    "keep_last_layer": True,
}
TRANSFER = {
    "task": "permuted_mnist",
    "layer_sizes": (800, 800, 64),
    "lr": 0.01,
    "mask_lr": 1e-2,
    "mask_loss_weight": 1.28e-3,
    "mask_init": 2.0,
    "mask_samples": 8,
    "mask_biases": True,
    "steps": 30_000,
    "mask_steps": 30_000,
    "transfer_used_init": 2.0,
    "transfer_tasks": 11,
}
MATH = {
    "task": "deepmind_math",
    "state_size": 512,
    "heads": 8,
    "ff_multiplier": 4.0,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "dropout": 0.1,
    "tied_embeddings": True,
    "adam_b2": 0.995,
    "adam_eps": 1e-9,
    "lr": 1e-4,
    "grad_clip": 0.1,
    "mask_samples": 8,
    "mask_biases": False,
    "math_train_splits": ("easy", "medium", "hard"),
    "math_mask_splits": ("easy",),
}
ALPHAS = [float(f"{a}e-5") for a in (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)]
ALPHAS += [float(f"{a}e-4") for a in (1, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5)]
ALPHAS += [float(f"{a}e-4") for a in (6, 7, 8, 9)] + [1e-3]


def _math(name, batch, mask_batch, weight, mask_lr, steps, mask_steps, warmup, every):
    return {
        **MATH,
        "math_task": name,
        "batch_size": batch,
        "mask_batch_size": mask_batch,
        "mask_loss_weight": weight,
        "mask_lr": mask_lr,
        "steps": steps,
        "mask_steps": mask_steps,
        "lr_warmup": warmup,
        "eval_every": every,
    }


PUBLISHED = {
    "addmul_feedforward": [
        {**ADDMUL, "layer_sizes": sizes} for sizes in (WIDE, (400, 400, 200))
    ],
    "addmul_feedforward_big": [{**ADDMUL, "layer_sizes": BIG}],
    "addmul_feedforward_huge": [{**ADDMUL, "layer_sizes": (4000,) * 4}],
    "addmul_ff_alpha_analysis": [
        {**ADDMUL, "layer_sizes": sizes, "mask_loss_weight": weight}
        for sizes in (WIDE, BIG)
        for weight in ALPHAS
    ],
    "addmul_rnn": [{**LSTM, "task": "addmul"}],
    "tuple_rnn": [{**LSTM, "task": "tuple", "tuple_mode": mode} for mode in MODES],
    "tuple_rnn_first_full_mask": [
        {**LSTM, "task": "tuple", "tuple_mode": mode, "inverse_io": "fullmask"}
        for mode in MODES
    ],
    "tuple_feedforward_big": [{**TUPLE, "layer_sizes": BIG}],
    "tuple_feedforward_big_first_full_mask": [
        {**TUPLE, "layer_sizes": BIG, "inverse_io": "fullmask"}
    ],
    "tuple_feedforward_big_copyweight": [
        {**TUPLE, "layer_sizes": BIG, "task": "tuple_ff_copyweight"}
    ],
    "tuple_feedforward_small_halfmask": [{**TUPLE, "layer_sizes": WIDE}],
    "scan": [SCAN],
    "trafo_scan": [TRAFO_SCAN],
    "scan_baseline": [
        {**network, "scan_train_split": split, "analysis": False}
        for network in (SCAN, TRAFO_SCAN)
        for split in ("length", "jump", "turn_left")
    ],
    "cifar10": [CIFAR],
    "cifar10_no_dropout": [{**CIFAR, "cnn_dropout": False}],
    "cifar10_mask_stability": [
        {
            **CIFAR,
            "cnn_dropout": False,
            "task": "cifar10_mask_stability",
            "stability_on": "minimal",
        }
    ],
    "cifar10_resnet": [RESNET],
    "transfer_sharing": [{**TRANSFER, "transfer_new_init": 2.0}],
    "transfer_sharing_prefer_old": [{**TRANSFER, "transfer_new_init": 0.0}],
    "transfer_sharing_prefer_old_even_more": [{**TRANSFER, "transfer_new_init": -1.0}],
    "dm_math_add_or_sub": [
        _math(
            *("arithmetic__add_or_sub", 256, 256, 2e-5, 0.03),
            *(30_000, 30_000, 0, 1000),
        )
    ],
    "dm_math_diff": [
        _math(
            *("calculus__differentiate", 128, 128, 1e-5, 0.03),
            *(40_000, 40_000, 0, 5000),
        )
    ],
    "dm_math_lin1d": [
        _math(
            *("algebra__linear_1d", 512, 400, 1e-6, 0.02),
            *(200_000, 50_000, 5000, 1000),
        )
    ],
    "dm_math_polycollect": [
        _math(
            *("polynomials__collect", 128, 256, 1e-6, 0.02),
            *(200_000, 50_000, 5000, 1000),
        )
    ],
    "dm_math_sort": [
        _math(
            *("comparison__sort", 256, 256, 3e-6, 0.03),
            *(30_000, 30_000, 0, 10_000),
        )
    ],
}
USUAL = {
    "optimizer": "adam",
    "lr": 1e-3,
    "weight_decay": 0.0,
    "adam_b2": 0.999,
    "batch_size": 128,
    "grad_clip": 1.0,
    "clip_weights": True,
    "lr_warmup": 0,
    "lr_steps": (),
    "mask_warmup": 0,
    "mask_lr": 1e-2,
    "mask_init": 2.0,
    "mask_samples": 4,
    "mask_batch_size": 0,
    "mask_tau": 1.0,
    "mask_kind": "gumbel",
    "mask_penalty": "linear",
    "mask_patience": 0,
    "scale_mask_loss": False,
    "skip_layernorm": False,
    "inverse_io": "none",
    "held_out_pairs": False,
    "only_control": False,
    "train_baseline": False,
    "analysis": True,
    "eval_every": 1000,
}
EVERY = [
    pytest.param(config, id=f"{name}-{i}")
    for name, experiment in EXPERIMENTS.items()
    # One of each network stands for the 25 penalties.
    for i, config in enumerate(experiment.configs[::25])
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_sweep_has_the_published_settings(name):
    configs, expected = EXPERIMENTS[name].configs, PUBLISHED[name]
    assert len(configs) == len(expected)
    for config, settings in zip(configs, expected, strict=True):
        settings = {**USUAL, **settings}
        assert {field: getattr(config, field) for field in settings} == settings


def test_sensitivity_names_each_penalty_once():
    configs = EXPERIMENTS["addmul_ff_alpha_analysis"].configs
    assert len(set(configs)) == len(configs) == 2 * 25


def test_experiments_are_complete():
    assert set(DATA) == set(TASKS)
    assert {c.task for e in EXPERIMENTS.values() for c in e.configs} == set(TASKS)
    assert all(name == row.name for name, row in EXPERIMENTS.items())
    assert EXPERIMENTS["custom"].configs == (Config(),)


def test_reference_runs_are_small_from_the_start():
    for task, widths in (("addmul", (200, 200)), ("tuple", (200, 200))):
        (config,) = EXPERIMENTS[f"reference_{task}_feedforward"].configs
        assert (config.task, config.layer_sizes) == (f"{task}_ff", widths)
    both = EXPERIMENTS["reference_tuple_rnn"].configs
    assert [(c.tuple_mode, c.state_size) for c in both] == [
        ("together", 64),
        ("only_one_io", 64),
    ]
    for name in ("addmul_feedforward", "tuple_feedforward", "tuple_rnn"):
        for config in EXPERIMENTS[f"reference_{name}"].configs:
            assert (config.digits, config.steps, config.mask_steps) == (1, 1500, 1500)
            assert (config.mask_lr, config.mask_loss_weight) == (1e-2, 1e-4)
            assert not config.mask_biases


@pytest.mark.parametrize("config", EVERY)
def test_a_scale_shrinks_steps_and_widths_together(config):
    assert scaled(config, "paper") == config
    small, smoke = scaled(config, "small"), scaled(config, "smoke")
    for larger, less in ((config, small), (small, smoke)):
        fields = ("steps", "mask_steps", "state_size", "batch_size", "math_items")
        for name in (*fields, "encoder_layers", "decoder_layers", "resnet_depth"):
            assert getattr(less, name) <= getattr(larger, name), name
        pairs = zip(less.layer_sizes, larger.layer_sizes, strict=True)
        assert all(a <= b for a, b in pairs)
        assert rows_of_batch(less) % less.mask_samples == 0
        assert less.batch_size % less.mask_samples == 0
        assert less.state_size % less.heads == 0
    assert small.steps <= 3000 and smoke.steps <= 250
    if config.task.endswith("_ff") or config.task == "permuted_mnist":
        assert max(smoke.layer_sizes) < max(small.layer_sizes) < 1000
    elif not config.task.startswith("cifar10"):
        assert smoke.state_size < small.state_size < 128


@pytest.mark.parametrize("config", EVERY)
@pytest.mark.parametrize("scale", ("smoke", "small"))
def test_an_unused_logit_can_still_fall_below_0(config, scale):
    less = scaled(config, scale)
    assert less.mask_lr * less.mask_steps > config.mask_init


@pytest.mark.parametrize("config", EVERY)
@pytest.mark.parametrize("scale", ("smoke", "small"))
def test_a_logit_is_pushed_down_as_before(config, scale):
    less = scaled(config, scale)
    pushed = [c.mask_loss_weight / c.batch_size for c in (config, less)]
    assert pushed[0] == pytest.approx(pushed[1])


def test_mask_lr_rises_by_what_the_steps_lose_up_to_a_cap():
    config = Config(mask_steps=3000, mask_lr=0.01)
    assert scaled(config, "small").mask_lr == pytest.approx(0.02)
    assert scaled(config, "smoke").mask_lr == 0.03
    # It never falls, and does not rise where it also trains the weights.
    assert scaled(Config(mask_lr=0.05), "smoke").mask_lr == 0.05
    for scale in ("smoke", "small"):
        (transfer,) = EXPERIMENTS["transfer_sharing"].configs
        assert scaled(transfer, scale).mask_lr == 0.01


def test_what_is_counted_in_steps_shrinks_with_them():
    (resnet,) = EXPERIMENTS["cifar10_resnet"].configs
    assert scaled(resnet, "small").lr_steps == (500, 750)
    (math,) = EXPERIMENTS["dm_math_lin1d"].configs
    assert scaled(math, "small").lr_warmup == 50
    config = Config(mask_steps=10_000, mask_warmup=1000, mask_patience=10)
    less = scaled(config, "smoke")
    assert (less.mask_warmup, less.mask_patience) == (10, 1)
    assert scaled(Config(), "small").eval_every == 300
    assert scaled(Config(eval_every=0), "small").eval_every == 0


def test_an_experiment_can_be_changed_after_it_was_scaled():
    (config,) = EXPERIMENTS["scan"].configs
    changed = dataclasses.replace(scaled(config, "smoke"), state_size=64, steps=9)
    assert (changed.state_size, changed.steps) == (64, 9)
