"""The published programs' command lines say what ours do."""

import pytest

from enasq import cell, experiments, spelling
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


@pytest.mark.parametrize(
    ("words", "message"),
    (
        ("--data_format NCHW", "data_format: got 'NCHW', expected NHWC"),
        ("--controller_skip_target .8", "controller_skip_target.*never use it"),
        ("--reset_output_dir True", "reset_output_dir.*--resume"),
        ("-fixed_arc 0 1 2", "architecture: got '3 numbers'"),
        (
            "-fixed_arc 0 2 1 4 1 3 0 1 --controller_training True",
            "controller_training: got True",
        ),
    ),
)
def test_what_means_nothing_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        parse(f"enasq search_mnist {words}")
