"""Named experiments of gaitprop.

The paper is N. Ahmad, M. van Gerven, L. Ambrogioni, "GAIT-prop: A biologically
plausible learning rule derived from backpropagation of error", NeurIPS 2020
(arXiv 2006.06438). The text of its result tables was not available to us, so a
reference names the setting, and `docs/results.md` holds the figures we measured.
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from gaitprop.config import Config
from shared.config import Experiment

TOWER = (784, 784, 500, 200, 10)
DIGITS_TOWER = (64, 64, 40, 20, 10)


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
