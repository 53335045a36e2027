"""Settings and named experiments of gaitprop.

The paper is N. Ahmad, M. van Gerven, L. Ambrogioni, "GAIT-prop: A biologically
plausible learning rule derived from backpropagation of error", NeurIPS 2020
(arXiv 2006.06438). The text of its result tables was not available to us, so a
reference names the setting, and `docs/results.md` holds the figures we measured.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gaitprop.inverse import SOLVERS
from gaitprop.layers import INITIALISERS
from gaitprop.networks import FIRST_LAYERS, LOSSES, REDUCTIONS
from gaitprop.optimizer import OPTIMIZERS
from gaitprop.propagation import FORMS, INVERSES
from gaitprop.regulariser import ORTHO_TARGETS
from gaitprop.rules import RULES
from gaitprop.transfer import TRANSFERS
from shared.config import Experiment, traced
from shared.errors import UsageError, check_choice, check_range

PIXELS = {"digits": 64, "mnist": 784, "fashion_mnist": 784, "kmnist": 784}
TOWER = (784, 784, 500, 200, 10)
DIGITS_TOWER = (64, 64, 40, 20, 10)


@dataclass(frozen=True)
class Config:
    """One training run of an invertible network.

    Attributes:
        dataset: digits, mnist, fashion_mnist or kmnist.
        widths: layer widths from the input on; equal widths make the square network,
            falling ones a tower. The last is at least `classes`.
        classes: number of classes, read from the first output units.
        transfer: leaky_relu or linear, in every layer.
        leaky_slope: slope of the leaky ReLU below zero.
        algorithm: learning rule.
        form: difference (no cancellation) or subtract (the published arithmetic).
        inverse: exact; learned alongside the network from the exact one on; or
            learned_random, from random matrices on.
        solver: how the exact inverse of a kernel is applied to errors.
        tolerance: largest relative residual that the solver refine leaves.
        gamma: size of GAIT-prop's nudge towards the target; 0 takes the limit.
        ortho_weight: strength of the orthogonality regulariser; 0 leaves it out.
        ortho_target: offdiag (rows orthogonal) or identity (rows orthonormal).
        loss: squared, or cross_entropy on the softmax of the class units.
        reduction: mean or sum over the images of a batch.
        linear_output: leave the transfer function out in the last layer.
        first_layer: square, or rectangular (it is never inverted, reads all inputs,
            and may have more units than there are inputs or fewer).
        init: orthogonal or glorot_normal kernels.
        optimizer: adam_nodebias (as published), adam or sgd.
        learning_rate: step size.
        beta1: decay of Adam's first moment.
        beta2: decay of Adam's second moment.
        eps: Adam's epsilon, outside the root.
        batch_size: images of one update.
        epochs: passes over the training set.
        steps: updates in all; 0 means whole epochs.
        eval_every: updates between evaluations; 0 means once an epoch.
        eval_train_rows: training images evaluated; 0 means all.
        checkpoint_every: updates between checkpoints; 0 means once an epoch.
        shuffle: a new order each epoch instead of the order of the files.
        valid_size: images held out from the end of the training set.
        diagnose: record angles to BP, orthogonality and condition numbers of the
            layers with each evaluation.
        seed: base of all random streams.
    """

    dataset: str = "mnist"
    widths: tuple[int, ...] = (784, 784, 784)
    classes: int = 10
    transfer: str = "leaky_relu"
    leaky_slope: float = 0.1
    algorithm: str = "bp"
    form: str = "difference"
    inverse: str = "exact"
    solver: str = "refine"
    tolerance: float = traced(1e-5)
    gamma: float = traced(1e-3, zero_is_static=True)
    ortho_weight: float = traced(0.0, zero_is_static=True)
    ortho_target: str = "offdiag"
    loss: str = "squared"
    reduction: str = "mean"
    linear_output: bool = False
    first_layer: str = "square"
    init: str = "orthogonal"
    optimizer: str = "adam_nodebias"
    learning_rate: float = traced(1e-4)
    beta1: float = traced(0.9)
    beta2: float = traced(0.99)
    eps: float = traced(1e-8)
    batch_size: int = 60
    epochs: int = 100
    steps: int = 0
    eval_every: int = 0
    eval_train_rows: int = 0
    checkpoint_every: int = 0
    shuffle: bool = False
    valid_size: int = 0
    diagnose: bool = True
    seed: int = traced(1)

    def __post_init__(self):
        check_choice("dataset", self.dataset, PIXELS)
        check_choice("algorithm", self.algorithm, RULES)
        check_choice("transfer", self.transfer, TRANSFERS)
        check_choice("form", self.form, FORMS)
        check_choice("inverse", self.inverse, INVERSES)
        check_choice("solver", self.solver, SOLVERS)
        check_choice("ortho_target", self.ortho_target, ORTHO_TARGETS)
        check_choice("loss", self.loss, LOSSES)
        check_choice("reduction", self.reduction, REDUCTIONS)
        check_choice("first_layer", self.first_layer, FIRST_LAYERS)
        check_choice("init", self.init, INITIALISERS)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_range("leaky_slope", self.leaky_slope, low=0, high=1, low_open=True)
        check_range("gamma", self.gamma, low=0, high=1)
        check_range("ortho_weight", self.ortho_weight, low=0)
        check_range("tolerance", self.tolerance, low=0, high=1, low_open=True)
        check_range("learning_rate", self.learning_rate, low=0, low_open=True)
        check_range("beta1", self.beta1, low=0, high=1, high_open=True)
        check_range("beta2", self.beta2, low=0, high=1, high_open=True)
        check_range("eps", self.eps, low=0, low_open=True)
        for name in ("batch_size", "epochs", "classes"):
            check_range(name, getattr(self, name), low=1)
        for name in ("steps", "eval_every", "eval_train_rows", "checkpoint_every"):
            check_range(name, getattr(self, name), low=0)
        check_range("valid_size", self.valid_size, low=0)
        check_range("seed", self.seed, low=0, high=2**31 - 1)
        _check_widths(self)
        if self.form == "subtract" and self.gamma == 0 and self.algorithm != "tp":
            raise UsageError("gamma", 0, "> 0 with form subtract")


def _check_widths(config: Config) -> None:
    widths, pixels = config.widths, PIXELS[config.dataset]
    # A rectangular first layer may have more units than inputs.
    falling = widths[1:] if config.first_layer == "rectangular" else widths
    steps = zip(falling, falling[1:], strict=False)
    if len(widths) < 2 or any(b > a for a, b in steps):
        raise UsageError("widths", widths, "two or more widths that never grow")
    if widths[0] != pixels:
        raise UsageError("widths", widths, f"{pixels} first, the pixels of an image")
    if widths[-1] < config.classes:
        raise UsageError(
            "widths", widths, f"a last width >= classes ({config.classes})"
        )


def scaled(config: Config, scale: Literal["smoke", "small", "paper"]) -> Config:
    """Shrink a run: smoke takes 100 updates, small at most 3 epochs, paper all."""
    if scale == "paper":
        return config
    if scale == "small":
        return dataclasses.replace(config, epochs=min(config.epochs, 3))
    rows = config.eval_train_rows or 2000
    return dataclasses.replace(config, steps=100, eval_train_rows=rows)


def square(hidden: int, pixels: int = 784) -> tuple[int, ...]:
    """Return the widths of a square network with `hidden` hidden layers."""
    return (pixels,) * (hidden + 2)


# Learning rate and regulariser of the published commands.
_PUBLISHED = {
    "bp": {"learning_rate": 1e-4, "ortho_weight": 0.0},
    "gait": {"learning_rate": 1e-4, "ortho_weight": 0.1},
    "tp": {"learning_rate": 1e-5, "ortho_weight": 1000.0},
}
# Minutes of 100 epochs on two CPU cores, from a measurement over 3.
_MINUTES = {"bp": 32, "gait": 110, "tp": 110}
_DATASETS = {"": "mnist", "-kmnist": "kmnist", "-fmnist": "fashion_mnist"}
# Learning rate of the small reference study on digits.
_DIGITS_RATE = {"bp": 1e-3, "gait": 1e-3, "tp": 1e-4}


def _published(algorithm: str, **changes) -> Config:
    settings = {"widths": square(4), "algorithm": algorithm, **_PUBLISHED[algorithm]}
    return Config(**{**settings, **changes})


def _digits(algorithm: str, **changes) -> Config:
    settings = {
        **_PUBLISHED[algorithm],
        "dataset": "digits",
        "widths": square(4, 64),
        "algorithm": algorithm,
        "learning_rate": _DIGITS_RATE[algorithm],
        "batch_size": 32,
    }
    return Config(**{**settings, **changes})


def _row(
    name: str,
    summary: str,
    configs: Config | tuple[Config, ...],
    reference: str,
    minutes: float | int,
    kind: Literal["train", "analysis"] = "train",
) -> Experiment:
    configs = configs if isinstance(configs, tuple) else (configs,)
    data = configs[0].dataset
    return Experiment(name, summary, configs, data, reference, round(minutes, 1), kind)


def _layers(hidden: int) -> str:
    return f"{hidden} hidden layer{'' if hidden == 1 else 's'}"


def _published_table() -> Iterator[Experiment]:
    """The published commands, and their settings on the other networks and data."""
    for suffix, data in _DATASETS.items():
        for rule in _PUBLISHED:
            title, time = f"{rule.upper()} on {data}", _MINUTES[rule]
            config = _published(rule, dataset=data)
            published, same = "published command", "settings of the published command"
            yield _row(
                f"sq4-{rule}{suffix}",
                f"{title}, square network with 4 hidden layers",
                config,
                same if suffix else published,
                time,
            )
            yield _row(
                f"tower-{rule}{suffix}",
                f"{title}, tower 784-784-500-200-10",
                dataclasses.replace(config, widths=TOWER),
                published if rule == "gait" and not suffix else same,
                time / 3,
            )
            yield _row(
                f"sq4-{rule}-linear{suffix}",
                f"{title}, linear network with 4 hidden layers",
                dataclasses.replace(config, transfer="linear"),
                published if rule == "tp" and not suffix else same,
                time,
            )
    for hidden in (1, 2, 3, 4, 6, 8):
        for rule in _PUBLISHED:
            yield _row(
                f"depth-{hidden}-{rule}",
                f"{rule.upper()} with {_layers(hidden)}",
                _published(rule, widths=square(hidden)),
                "supplement: depth of the network",
                _MINUTES[rule] * (hidden + 1) / 5,
            )
    yield _row(
        "default-cli",
        "defaults of the published program: BP, 1 hidden layer",
        _published("bp", widths=square(1)),
        "published program without options",
        15,
    )
    yield _row(
        "grid", "learning rate by regulariser, four rules", _grid(), "supplement", 9000
    )


def _variants_table() -> Iterator[Experiment]:
    """One setting of sq4-gait or sq4-bp changed, and the study of round-off."""
    gait, replace = _published("gait"), dataclasses.replace
    variants = {
        "itp": ("ITP: GAIT-prop without the squared derivative", {"algorithm": "itp"}),
        "init-glorot": ("GAIT from Glorot kernels", {"init": "glorot_normal"}),
        "sq4-gait-noreg": ("GAIT without regulariser", {"ortho_weight": 0.0}),
        "sq4-gait-identity": (
            "GAIT, regulariser towards orthonormal rows",
            {"ortho_target": "identity"},
        ),
        "sq4-gait-adaptive": (
            "GAIT with a nudge of constant length (arXiv 2102.11598)",
            {"algorithm": "gait_adaptive", "gamma": 1e-7},
        ),
    }
    for name, (summary, changes) in variants.items():
        config = replace(gait, **changes)
        yield _row(name, summary, config, "variant of sq4-gait", _MINUTES["gait"])
    yield _row(
        "sq4-fa",
        "feedback alignment baseline: fixed random orthogonal feedback",
        replace(_published("bp"), algorithm="feedback_alignment"),
        "Lillicrap et al. 2016",
        _MINUTES["bp"],
    )
    learned = replace(gait, inverse="learned", gamma=1e-2)
    yield _row(
        "learned-inverse",
        "GAIT and TP with inverses learned alongside",
        (learned, _published("tp", inverse="learned")),
        "the question of the paper's reviewers",
        240,
    )
    nudges = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 0.0)
    yield _row(
        "gamma-sweep",
        "GAIT over gamma from 1e-1 to 1e-6, and the limit 0",
        tuple(replace(gait, gamma=gamma) for gamma in nudges),
        "nudge of sq4-gait varied",
        7 * _MINUTES["gait"],
    )
    yield _row(
        "roundoff",
        "round-off of the published and of the difference form, 1 to 8 hidden layers",
        tuple(replace(gait, widths=square(hidden)) for hidden in range(1, 9)),
        "arithmetic of the GAIT update",
        5,
        "analysis",
    )


def _grid() -> tuple[Config, ...]:
    rates, weights = (1e-6, 1e-5, 1e-4, 1e-3), (0.0, 0.1, 1.0, 10.0, 100.0, 1000.0)
    base = _published("gait")
    return tuple(
        dataclasses.replace(base, algorithm=rule, learning_rate=rate, ortho_weight=w)
        for rule in ("gait", "tp", "itp", "bp")
        for w in weights
        for rate in rates
    )


def _digits_table() -> Iterator[Experiment]:
    """The small study on the embedded digits, which needs no files."""
    reference = "8x8 digits, three seeds: accuracies in docs/results.md"
    yield _row(
        "digits-rules",
        "BP, GAIT and TP on 8x8 digits, 4 hidden layers, in one run",
        tuple(_digits(rule) for rule in _PUBLISHED),
        reference,
        1,
    )
    for rule in _PUBLISHED:
        networks = {
            **{
                f"digits-h{hidden}-{rule}": (
                    _layers(hidden),
                    _digits(rule, widths=square(hidden, 64)),
                )
                for hidden in (1, 4, 8)
            },
            f"digits-h4-{rule}-linear": (
                "linear, 4 hidden layers",
                _digits(rule, transfer="linear"),
            ),
            f"digits-tower-{rule}": (
                "tower 64-64-40-20-10",
                _digits(rule, widths=DIGITS_TOWER),
            ),
        }
        for name, (network, config) in networks.items():
            summary = f"{rule.upper()} on 8x8 digits, {network}"
            yield _row(name, summary, config, reference, 0.3)
    yield _row(
        "digits-h4-noreg",
        "GAIT and TP on 8x8 digits without regulariser",
        tuple(_digits(rule, ortho_weight=0.0) for rule in ("gait", "tp")),
        reference,
        0.6,
    )


EXPERIMENTS: dict[str, Experiment] = {
    row.name: row for row in (*_published_table(), *_variants_table(), *_digits_table())
}
