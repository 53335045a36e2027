"""The published programs' command lines say what ours do."""

import re
from pathlib import Path

import pytest

from enasq import cell, experiments, parts, spelling
from enasq.figures import FIGURES
from enasq.quantization import QUANTIZERS
from shared import cli, flags
from shared.errors import UsageError

# Of the published documents: a search's log shows both.
LOGGED = (
    "0 2 1 4 1 3 0 1 1 0 1 0 1 2 0 4 0 0 0 1 1 3 1 4 0 1 1 1 1 2 1 4 3 2 0 2 1 1 0 3",
    "0 0 0 1 1 0 1 3 1 1 0 3 1 1 1 0 0 4 0 0 1 0 1 4 1 1 1 0 1 2 0 4 0 1 4 0 0 0 0 2",
)


def parse(line: str, *more: str):
    words = [*line.split(), *more]
    return cli.parse(words, {"enasq": experiments}, prog="train")


@pytest.mark.parametrize("arc", (*LOGGED, experiments.MNIST_ARC.replace(" |", "")))
def test_an_architecture_is_given_as_published(arc):
    request = parse("enasq train_mnist -fixed_arc", arc)
    (config,) = request.experiment.configs
    assert (config.task, config.architecture) == ("fixed", arc)
    assert cell.render(experiments_arc(config)) == arc


def experiments_arc(config):
    return cell.parse(config.architecture)


def test_published_flags_set_ours():
    line = (
        "enasq search_mnist_published --output_dir here --child_num_layers=4 "
        "--child_lr_T_0 5 --controller_temperature None --child_lr_cosine False "
        "--n_aug_img 2 --data_format NHWC --controller_bl_dec .9"
    )
    request = parse(line)
    (config,) = request.experiment.configs
    assert str(request.options.out) == "here"
    assert (config.layers, config.lr_period, config.copies) == (4, 5, 2)
    assert (config.temperature, config.schedule) == (0.0, "exponential")
    assert config.baseline_decay == 0.9


def test_every_renamed_flag_is_one_of_ours():
    ours = set(flags.hints(type(experiments.EXPERIMENTS["search_mnist"].configs[0])))
    ours |= set(flags.hints(cli.RunOptions))
    assert set(spelling.RENAMED.values()) <= ours


def config_of(line: str, *more: str):
    (config,) = parse(f"enasq {line}", *more).experiment.configs
    return config


@pytest.mark.parametrize(
    ("value", "expected"),
    (
        *((word, True) for word in ("true", "True", "1", "yes", "")),
        *((word, False) for word in ("false", "False", "0", "no")),
    ),
)
def test_a_switch_is_spelled_in_many_ways(value, expected):
    config = config_of(
        f"search_mnist_published --child_lr_cosine {value} "
        f"--controller_training {value} --child_use_aux_heads {value} --flip {value}"
    )
    assert config.schedule == ("cosine" if expected else "exponential")
    assert (config.controller, config.aux_head, config.flip) == (expected,) * 3


@pytest.mark.parametrize("name", (*spelling.IDLE, "reset_output_dir"))
def test_what_means_nothing_is_accepted_with_a_notice(name):
    with pytest.warns(UserWarning, match=f"^--{name} .*no effect"):
        config = config_of(f"search_mnist --{name} 1 --child_num_layers 3")
    assert config.layers == 3


def test_an_architecture_sets_the_blocks_unless_they_are_typed():
    line = "search_mnist_published -fixed_arc"
    config = config_of(line, LOGGED[0])
    assert (config.task, parts.blocks(config)) == ("fixed", 5)
    assert config_of(f"{line} {LOGGED[0]} --child_num_cells 5").blocks == 5
    with pytest.raises(UsageError, match="24 for 3 blocks"):
        config_of(f"{line} {LOGGED[0]} --blocks 3")


@pytest.mark.parametrize(
    ("words", "expected"),
    (
        ("search_mnist --child_grad_bound 2.5", ("norm", 2.5)),
        ("search_mnist --clip global --child_grad_bound 2.5", ("global", 2.5)),
        ("enas_search --child_grad_bound None", ("none", 5.0)),
        ("search_mnist_published --child_grad_bound 2.5", ("published_norm", 2.5)),
        ("train_mnist_published --child_grad_bound 2.5", ("published_norm", 2.5)),
    ),
)
def test_a_bound_of_gradients_clips(words, expected):
    config = config_of(words)
    assert (config.clip, config.clip_bound) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    (
        ("--data_format NCHW", "data_format: got 'NCHW', expected NHWC"),
        ("--child_lr_cosine maybe", "child_lr_cosine: got 'maybe', expected True or"),
        ("--controller_use_critic yes", "controller_use_critic: got 'yes'"),
        ("--clip_bound 3", "clip_bound: got '3'.*--clip norm"),
        ("--clip none --child_grad_bound 3", "clip_bound: got '3'"),
        ("-fixed_arc 0 1 2", "architecture: got '3 numbers'"),
        (
            "-fixed_arc 0 2 1 4 1 3 0 1 --controller_training True",
            "controller_training: got True",
        ),
        (
            "--controller_training -fixed_arc 0 2 1 4 1 3 0 1",
            "controller_training: got True",
        ),
        (
            "-fixed_arc 0 2 1 4 1 3 0 1 --controller_training true",
            "controller_training: got True",
        ),
    ),
)
def test_what_cannot_be_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        parse(f"enasq search_mnist {words}")


def test_the_documentation_has_every_name():
    page = (Path(__file__).parents[2] / "docs" / "enasq.md").read_text()
    pairs = re.findall(r"`--(\w+)` \| `--([\w-]+)`", page)
    table = {name: ours.replace("-", "_") for name, ours in pairs}
    assert spelling.RENAMED.items() <= table.items()
    named = {*spelling.IDLE, *spelling.ONLY, "reset_output_dir", "child_grad_bound"}
    assert all(f"`--{name}" in page for name in named)
    assert all(f"| `{name}` |" in page for name in (*QUANTIZERS, *FIGURES))
