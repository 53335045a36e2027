"""Sweep files of the published program become the configs that they ask for."""

import dataclasses
from pathlib import Path

import pytest

from modmask import options, sweeps
from modmask.config import Config
from modmask.experiments import EXPERIMENTS
from shared.errors import UsageError

HEAD = """program: main.py
command: ["${env}", python3, "${program}", "${args}"]
method: grid
metric: {name: validation/mean_accuracy, goal: maximize}
parameters:
"""
FEEDFORWARD = """
  name: {value: addmul_feedforward}
  log: {value: wandb}
  task: {value: addmul_ff}
  stop_after: {value: 20000}
  layer_sizes:
    distribution: categorical
    values: ["800,800,800,800", "400,400,200"]
  n_digits: {value: 2}
  mask_loss_weight: {value: 0.0001}
  mask_lr: {value: 1e-2}
  step_per_mask: {value: 20000}
  bias_no_mask: {value: 1}
  sweep_id_for_grid_search: {values: [1, 2, 3]}
"""
BASELINE = """
  profile: {values: [scan, trafo_scan]}
  scan.train_split: {values: [length, jump, turn_left]}
  analysis.enable: {value: 0}
  stop_after: {value: 25000}
"""
MATH = """
  profile: {value: deepmind_math}
  dm_math.task: {value: algebra__linear_1d}
  mask_loss_weight: {value: 1e-6}
  step_per_mask: {value: 50000}
  mask_lr: {value: 0.02}
  batch_size: {value: 512}
  mask_batch_size: {value: 400}
  lr_warmup: {value: 5000}
  stop_after: {value: 200000}
"""
RESNET = """
  profile: {value: cifar10_resnet_hp}
"""
TRANSFER = """
  task: {value: permuted_mnist}
  stop_after: {value: 30000}
  mask_loss_weight: {value: 0.00128}
  lr: {value: 0.01}
  mask_init: {value: 2}
  layer_sizes: {value: "800,800,64"}
  transfer.mask_new_init: {value: -1}
"""
FOREIGN = {"digits", "math_task", "mask_steps", "mask_loss_weight"}
"""Fields that a task or a run without masks does not read."""


@pytest.fixture
def write(tmp_path):
    def write(parameters: str, name: str = "sweep.yaml") -> Path:
        path = tmp_path / name
        path.write_text(HEAD + parameters)
        return path

    return write


def differing(a: Config, b: Config) -> set[str]:
    names = [field.name for field in dataclasses.fields(Config)]
    return {name for name in names if getattr(a, name) != getattr(b, name)}


def test_a_file_gives_the_experiment_of_its_name_for_each_repetition(write):
    sweep = sweeps.read(write(FEEDFORWARD))
    assert sweep.name == "addmul_feedforward"
    found = sweeps.members(sweep)
    assert [c.seed for c in found.configs] == [1, 2, 3, 1, 2, 3]
    expected = EXPERIMENTS["addmul_feedforward"].configs
    for config, same in zip(found.configs[::3], expected, strict=True):
        assert differing(config, same) <= {"seed", "math_task"}
    assert found.notes == ("log wandb: use --sinks tensorboard wandb",)


@pytest.mark.parametrize(
    ("parameters", "experiment"),
    [
        (BASELINE, "scan_baseline"),
        (MATH, "dm_math_lin1d"),
        (RESNET, "cifar10_resnet"),
        (TRANSFER, "transfer_sharing_prefer_old_even_more"),
    ],
)
def test_files_with_profiles_give_the_published_settings(parameters, experiment, write):
    sweep = sweeps.read(write(parameters, f"{experiment}.yaml"))
    assert sweep.name == experiment
    configs, expected = sweeps.members(sweep).configs, EXPERIMENTS[experiment].configs
    assert len(configs) == len(expected)
    foreign = FOREIGN if experiment == "scan_baseline" else {"digits"}
    for config, same in zip(configs, expected, strict=True):
        assert differing(config, same) <= foreign | {"math_task"}
    if experiment == "dm_math_lin1d":
        assert configs[0].math_task == "algebra__linear_1d"


def test_an_option_outweighs_a_profile_and_a_profile_a_default():
    config = options.to_config({"profile": "scan", "batch_size": 64})
    assert (config.batch_size, config.state_size, config.lr) == (64, 200, 1e-3)
    both = options.to_config({"profile": "scan,tuple"})
    assert (both.task, both.state_size, both.dropout) == ("tuple", 256, 0.5)
    assert options.to_config({}).digits == 1


def test_the_published_transformer_has_its_own_dropout_unless_told_otherwise():
    assert options.to_config({"task": "trafo_scan"}).dropout == 0.1
    assert options.to_config({"profile": "trafo_scan"}).dropout == 0.1
    assert options.to_config({"profile": "trafo_scan", "dropout": 0.3}).dropout == 0.3


@pytest.mark.parametrize(
    ("option", "value", "field", "expected"),
    [
        ("bias_no_mask", 1, "mask_biases", False),
        ("bias_no_mask", 0, "mask_biases", True),
        ("cnn.dropout", "0", "cnn_dropout", False),
        ("analysis.enable", False, "analysis", False),
        ("grad_clip", "None", "grad_clip", 0.0),
        ("mask_batch_size", None, "mask_batch_size", 0),
        ("mask_lr", "none", "mask_lr", 1e-3),
        ("mask_lr", "3e-2", "mask_lr", 0.03),
        ("layer_sizes", "400_400;200 10", "layer_sizes", (400, 400, 200, 10)),
        ("layer_sizes", 50, "layer_sizes", (50,)),
        ("lr_sched.steps", "", "lr_steps", ()),
        (
            "scan.analyze_splits",
            "jump,length",
            "scan_analyze_splits",
            ("jump", "length"),
        ),
        ("dm_math.task", "comparison__sort", "math_task", "comparison__sort"),
        ("task", "cifar10_grad_cos_distance", "task", "cifar10_grad_cosine"),
        ("save_interval", 50, "checkpoint_every", 50),
        ("tuple.tuple2_delay", 7, "tuple_delay", 7),
        ("transformer.use_paper_lr_schedule", 1, "lr_inverse_root", True),
        ("restore_pretrained", "runs/x", "restore", "runs/x"),
        ("sweep_id_for_grid_search", 4, "seed", 4),
        ("seed", "none", "seed", 0),
        ("stop_after", 30.0, "steps", 30),
    ],
)
def test_an_option_sets_its_field(option, value, field, expected):
    config = options.to_config({option: value})
    given = getattr(config, field)
    assert given == expected and isinstance(given, type(expected))
    assert differing(config, options.to_config({})) <= {field}


def test_every_field_that_an_option_sets_exists():
    fields = {field.name for field in dataclasses.fields(Config)}
    assert {field for field, _ in options.OPTIONS.values()} <= fields


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mask_losss_weight": 1}, "Did you mean 'mask_loss_weight'"),
        ({"profile": "scna"}, "Did you mean 'scan'"),
        ({"task": "tupel"}, "Did you mean 'tuple'"),
        ({"tuple.mode": "only_two"}, "Did you mean 'only_one'"),
        ({"scan.analyze_splits": "jumps"}, "Did you mean 'jump'"),
        ({"lr": "fast"}, "lr: got 'fast', expected a number"),
        ({"n_layers": 2.5}, "n_layers: got 2.5, expected a whole number"),
        ({"n_layers": "nan"}, "a whole number"),
        ({"bias_no_mask": 2}, "bias_no_mask: got '2'"),
        ({"stop_after": "none"}, "stop_after: got 'none'"),
        ({"dm_math.tasks": "a,b"}, "one name"),
        ({"batch_size": 126}, "a multiple of mask_samples"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(given, words):
    with pytest.raises(UsageError) as caught:
        options.to_config(given)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "expected YAML"),
        ("just words", "'parameters'"),
        ("parameters: [1]", "'parameters'"),
        ("method: bayes\nparameters: {}", "method: got 'bayes'"),
        ("parameters: {lr: 0.1}", "parameter lr: got 0.1"),
        ("parameters: {lr: {values: []}}", "'values' with a list"),
        ("parameters: {lr: {values: 3}}", "'values' with a list"),
        ("parameters: {lrr: {value: 3}}", "Did you mean 'lr'"),
        ("parameters: {x: !!python/name:os.system {}}", "expected YAML"),
    ],
)
def test_a_damaged_file_is_refused(text, words, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        sweeps.read(path)
    assert words in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        sweeps.read(tmp_path / "none.yaml")


def test_a_value_named_twice_counts_once(write):
    weights = "  mask_loss_weight: {values: [0.00010, 0.0001, 1e-4, 2e-4]}"
    found = sweeps.members(sweeps.read(write(weights)))
    assert [config.mask_loss_weight for config in found.configs] == [1e-4, 2e-4]


def test_a_choice_leaves_one_value(write):
    sweep = sweeps.read(write(FEEDFORWARD + "  lr: {values: [1e-3, 0.01]}\n"))
    assert list(sweeps.several(sweep)) == ["layer_sizes", "lr"]
    sweep = sweeps.choose(sweep, "layer_sizes", "400,400,200")
    sweep = sweeps.choose(sweep, "lr", "0.001")
    assert not sweeps.several(sweep)
    assert {c.layer_sizes for c in sweeps.members(sweep).configs} == {(400, 400, 200)}
    assert {c.lr for c in sweeps.members(sweep).configs} == {1e-3}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("layer_size", "1", "Did you mean 'layer_sizes'"),
        ("layer_sizes", "400,400,20", "Did you mean '400,400,200'"),
    ],
)
def test_a_choice_that_the_file_does_not_offer_is_refused(name, value, words, write):
    with pytest.raises(UsageError, match=words):
        sweeps.choose(sweeps.read(write(FEEDFORWARD)), name, value)


PUBLISHED = """
name profile reset log save_interval seed gpu keep_alive sweep_id_for_grid_search task
batch_size test_batch_size mask_batch_size lr wd optimizer lr_warmup lr_sched.steps
lr_sched.gamma grad_clip stop_after step_per_mask test_interval mask_lr
mask_loss_weight mask_init scale_mask_loss bias_no_mask masking.warmup.nsteps n_digits
state_size n_layers layer_sizes dropout tuple.mode tuple.tuple2_delay scan.train_split
scan.analyze_splits encoder_decoder.embedding_size transformer.n_heads
transformer.ff_multiplier transformer.encoder_n_layers transformer.decoder_n_layers
transformer.use_paper_lr_schedule cnn.dropout class_removal.keep_last_layer
transfer.mask_new_init transfer.mask_used_init transfer.reset_first_layer
dm_math.tasks dm_math.task dm_math.train_splits dm_math.masks_splits
mask_stability.measure_on inv_mask_exclude_io analysis.enable analysis.plot_masks
analysis.only_verify_masks analysis.skip_layernorm restore_pretrained test_pretrained
train_baseline
"""


@pytest.mark.parametrize("name", PUBLISHED.split())
def test_every_published_option_can_be_in_a_file(name, write):
    sweep = sweeps.read(write(f"  {name}: {{value: none}}"))
    assert sweep.name == "none" if name == "name" else len(sweep.values) == 1


def test_a_setting_without_effect_says_what_to_use_instead():
    given = {"gpu": "0", "log": "tb", "keep_alive": 1, "lr": 0.1}
    assert len(options.notes(given)) == 2
    assert any("CUDA_VISIBLE_DEVICES" in note for note in options.notes({"gpu": 1}))
