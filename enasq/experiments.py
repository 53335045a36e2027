"""Named experiments of enasq.

The published programs search on MNIST and CIFAR-10 with mixed 4-bit and ternary layers,
from H. Pham, M. Guan, B. Zoph, Q. Le, J. Dean, "Efficient Neural Architecture Search
via Parameter Sharing", ICML 2018 (arXiv 1802.03268). No converged results of the
quantised searches are published; `docs/results.md` holds what we measured.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

from enasq.config import Config
from enasq.spelling import translated as translated
from shared.config import Experiment

CIFAR_ARC = (
    "1 2 1 3 0 1 0 4 1 1 1 1 0 1 0 1 1 0 0 1 | 0 1 0 4 1 0 2 0 0 3 1 1 0 0 0 0 4 1 1 0"
)
MNIST_ARC = (
    "1 2 0 0 1 1 0 1 1 1 0 0 1 1 1 3 0 1 1 0 | 1 4 1 1 2 0 1 3 1 3 1 2 1 0 1 0 3 1 1 0"
)
ENAS_ARC = (
    "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 | 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"
)

SETTINGS: dict[str, dict[str, Any]] = {
    "cifar10": {"layers": 3, "blocks": 3, "lr_min": 5e-4, "epochs": 150},
    "mnist": {"layers": 2, "blocks": 3, "lr_min": 5e-4, "epochs": 300},
}
"""What the published searches set for each data set."""

PUBLISHED: dict[str, Any] = {
    "policy": "published",
    "loss": "published_hinge",
    "beta1": 0.0,
    "epsilon": 1e-3,
    "lr_max": 0.05,
    "aux_head": True,
    "stride_inside": False,
    "kernel_rates": False,
    "project": False,
    "train_aux_head": False,
    "rescale": True,
    "head_range": 1.0,
    "op_bias": 10.0,
    "entropy": "reward",
    "baseline": "updated",
    "compat": True,
}
"""How the published programs differ from the defaults."""


def scaled(config: Config, scale: Literal["smoke", "small", "paper"]) -> Config:
    """Shrink a run: smoke takes a few minutes, and narrow networks; small more."""
    if scale == "paper":
        return config
    small = scale == "small"
    shape = {} if small else {"layers": min(config.layers, 3), "filters": 8}
    return dataclasses.replace(
        config,
        **shape,
        epochs=min(config.epochs, 3 if small else 1),
        steps=0 if small or config.task == "study" else 20,
        study_epochs=min(config.study_epochs, 10 if small else 1),
        study_seeds=min(config.study_seeds, 2 if small else 1),
        random_cells=min(config.random_cells, 3 if small else 1),
        controller_updates=min(config.controller_updates, 10 if small else 2),
        log_every=config.log_every if small else 5,
    )


def _row(
    name: str, summary: str, config: Config, reference: str, minutes: float | int
) -> Experiment:
    return Experiment(name, summary, (config,), config.dataset, reference, minutes)


def _published() -> Iterator[Experiment]:
    """The four published programs, as they are and as recommended."""
    arcs = {
        "cifar10": (CIFAR_ARC, {"layers": 15, "filters": 16, "lr_min": 1e-4}),
        "mnist": (MNIST_ARC, {"layers": 6, "filters": 16, "lr_min": 1e-5}),
    }
    for data, short in (("mnist", "mnist"), ("cifar10", "cifar")):
        arc, final = arcs[data]
        search = Config(dataset=data, **SETTINGS[data], **PUBLISHED)
        search = dataclasses.replace(search, clip="published_norm")
        yield _row(
            f"search_{short}_published",
            f"the published search on {data}, with its quirks",
            search,
            "published program; its log of MNIST ends at 96.2 %",
            4000,
        )
        training = Config(
            task="fixed",
            dataset=data,
            architecture=arc,
            log_every=50,
            epochs=300 if data == "mnist" else 5,
            copies=3 if data == "mnist" else 1,
            valid_size=-1 if data == "mnist" else 0,
            **PUBLISHED | final,
        )
        yield _row(
            f"train_{short}_published",
            f"the published training on {data}, with its quirks",
            training,
            "published program",
            4000,
        )
        wide = {"filters": 32} if data == "mnist" else {"filters": 36}
        yield _row(
            f"search_{short}",
            f"search of binary cells on {data}, all on bits",
            Config(dataset=data, layers=2, epochs=20, **_photographs(data)),
            "recommended settings",
            400,
        )
        yield _row(
            f"train_{short}",
            f"training of the published cells on {data}, binary, all on bits",
            Config(
                task="fixed",
                dataset=data,
                architecture=arc,
                layers=6,
                epochs=30,
                lr_period=0,
                **wide,
                **_photographs(data),
            ),
            "recommended settings",
            400,
        )


def _photographs(data: str) -> dict[str, Any]:
    """Return how photographs are changed in training."""
    return {"crop": 4, "flip": True} if data == "cifar10" else {}


def _enas() -> Iterator[Experiment]:
    """Full-precision cells with the settings of Pham et al. for CIFAR-10."""
    floats: dict[str, Any] = {
        "dataset": "cifar10",
        "policy": "float",
        "loss": "softmax",
        "optimizer": "momentum",
        "lr_max": 0.05,
        "pool_positions": ("third",),
        "aux_head": True,
        "clip": "norm",
        "crop": 4,
        "flip": True,
    }
    yield _row(
        "enas_search",
        "the search of Pham et al. in full precision",
        Config(
            layers=6,
            batch_size=160,
            keep=0.9,
            l2=1e-4,
            lr_min=5e-4,
            epochs=150,
            **floats,
        ),
        "Pham et al. (2018), section 3.2, micro search",
        30_000,
    )
    yield _row(
        "enas_final",
        "their best cells in full precision",
        Config(
            task="fixed",
            architecture=ENAS_ARC,
            layers=15,
            filters=36,
            batch_size=144,
            keep=0.8,
            l2=2e-4,
            lr_min=1e-4,
            epochs=630,
            drop_path_keep=0.6,
            cutout=16,
            **floats,
        ),
        "Pham et al. (2018), Table 1: 3.54 % errors, 2.89 % with CutOut",
        300_000,
    )


DIGITS: dict[str, Any] = {
    "dataset": "digits",
    "layers": 0,
    "blocks": 5,
    "filters": 32,
    "pool_positions": ("0",),
    "batch_size": 32,
    "eval_batch": 64,
    "lr_max": 0.01,
    "lr_period": 0,
}
"""Settings of the small reference study."""


def _digits() -> Iterator[Experiment]:
    """The small study, and its parts."""
    study = Config(task="study", epochs=30, study_epochs=16, **DIGITS)
    yield _row(
        "digits-search",
        "searches, trains and exports a binary cell, beside random ones and floats",
        study,
        "small reference study",
        15,
    )
    searching = dataclasses.replace(study, task="search")
    yield _row("digits-search-only", "its search alone", searching, "small study", 2)
    yield _row(
        "digits-search-published",
        "its search with the published program's quirks",
        Config(**{**DIGITS, **PUBLISHED, "aux_head": False, "epochs": 30}),
        "small study",
        2,
    )
    yield _row(
        "digits-bits",
        "search in which cells choose binary, ternary or 2-bit operations",
        dataclasses.replace(searching, choices=("binary", "ternary", "2-bit")),
        "small study",
        4,
    )


MNIST: dict[str, Any] = {
    "dataset": "mnist",
    "image_size": 14,
    "layers": 0,
    "filters": 32,
    "pool_positions": ("0",),
    "batch_size": 64,
    "eval_batch": 500,
    "lr_max": 0.01,
    "lr_period": 0,
}
"""Settings of the study on MNIST, for two cores: means of two by two pixels."""


def _mnist() -> Iterator[Experiment]:
    """The study on MNIST, and its parts."""
    study = Config(
        task="study",
        epochs=2,
        study_epochs=8,
        study_seeds=1,
        random_cells=3,
        **MNIST,
    )
    yield _row(
        "mnist-search",
        "searches, trains and exports a binary cell on MNIST of 14 x 14 pixels",
        study,
        "our study",
        180,
    )
    yield _row(
        "mnist-search-only",
        "its search alone",
        dataclasses.replace(study, task="search"),
        "our study",
        20,
    )


def _table() -> dict[str, Experiment]:
    rows = (*_digits(), *_mnist(), *_published(), *_enas())
    return {row.name: row for row in rows}


EXPERIMENTS = _table()
"""Experiments by name."""
