"""Named experiments: those of the paper, and small studies on embedded digits.

The paper reports its results as curves alone; `docs/results.md` holds the figures that
we measured.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from multipath.trees.config import K_CPTS, Config, channels
from shared.config import Experiment

__all__ = ["EXPERIMENTS", "Config", "scaled"]

# Temperature at the start, by family.
_TAU = {"sr": 1.0, "actor": 1.0, "critic": 0.1}

# Minutes of one network of 80,000 updates on two CPU cores, from seconds a step.
_MINUTES = {"sr": 150, "chain": 240, "tree": 1200}

_FAMILIES = {"ac": "actor", "cr": "critic"}


def scaled(config: Config, scale: Literal["smoke", "small", "paper"]) -> Config:
    """Shrink a run: smoke to a minute, small to minutes, paper changes nothing.

    Updates shrink, with the schedules that are counted in them, and channels (not
    those of the studies on digits); prices rise so that price times operations keeps
    its range. Statistics are taken over a part of the sets.
    """
    if scale == "paper":
        return config
    n_iter, divide, rows = (800, 2, 2000) if scale == "small" else (40, 4, 256)
    if n_iter >= config.n_iter:
        return config
    shrink = n_iter / config.n_iter
    if config.dataset.startswith("digits"):
        divide = 1
    arch = tuple(
        ",".join(str(-(-int(n) // divide)) for n in entry.split(","))
        for entry in config.arch
    )
    changed = dataclasses.replace(config, arch=arch)
    cheaper = _size(config) / _size(changed)
    return dataclasses.replace(
        changed,
        n_iter=n_iter,
        t_log=n_iter // (8 if scale == "small" else 2),
        lr_half=config.lr_half * shrink,
        tau_half=config.tau_half * shrink,
        k_cpt=config.k_cpt * cheaper,
        k_cpts=tuple(k * cheaper for k in config.k_cpts),
        alpha_cpt=config.alpha_cpt / cheaper,
        eval_rows=min(config.eval_rows or rows, rows),
        batch=min(config.batch, 128 if scale == "small" else 32),
    )


def _size(config: Config) -> float:
    """Return what the operations grow with: squared channels."""
    return float(sum(n**2 for entry in channels(config) for n in entry))


def _statics(config: Config) -> tuple[Config, ...]:
    """Return the statically routed nets of all depths."""
    depths = range(1, len(config.arch) + 1)
    return tuple(
        dataclasses.replace(config, family="sr", tau=1.0, depth=depth)
        for depth in depths
    )


def _priced(config: Config, prices: Sequence[float] = K_CPTS) -> tuple[Config, ...]:
    """Return one network for each price of an operation."""
    return tuple(dataclasses.replace(config, k_cpt=price) for price in prices)


def _dynamic(family: str, **changes: Any) -> Config:
    return Config(family=family, tau=_TAU[family], **changes)


def _row(
    name: str, summary: str, configs: tuple[Config, ...], reference: str
) -> Experiment:
    first = configs[0]
    kind = "sr" if first.family == "sr" else first.topology
    minutes = len(configs) * _MINUTES[kind] * first.width**2
    if first.dataset.startswith("digits"):
        minutes = len(configs) * first.n_iter / 800
    return Experiment(name, summary, configs, first.dataset, reference, round(minutes))


def _published() -> Iterator[Experiment]:
    """The experiments of the published program."""
    yield _row(
        "hybrid-sr",
        "statically routed nets of 1 to 8 layers, hybrid data",
        _statics(Config()),
        "figure 5",
    )
    variants = {
        "hybrid-ac": ("actor chains over 8 prices", _dynamic("actor")),
        "hybrid-ac-nokdec": (
            "actors without a cost of decisions",
            _dynamic("actor", k_dec=0.0),
        ),
        "hybrid-ac-notalr": (
            "actors without throughput-adjusted learning rates",
            _dynamic("actor", talr=False),
        ),
        "hybrid-ac-tree": ("actor trees", _dynamic("actor", topology="tree")),
        "hybrid-cr": ("pragmatic critic chains", _dynamic("critic")),
        "hybrid-cr-opt": (
            "optimistic critics",
            _dynamic("critic", optimistic=True),
        ),
        "hybrid-cr-clserr": (
            "critics of classification errors",
            _dynamic("critic", use_cls_err=True),
        ),
        "hybrid-cr-notalr": (
            "critics without throughput-adjusted learning rates",
            _dynamic("critic", talr=False),
        ),
        "hybrid-ac-globopt": (
            "actors whose policy also follows the costs of complexity and decisions",
            _dynamic("actor", stop_grad_p=False),
        ),
    }
    for name, (summary, config) in variants.items():
        yield _row(name, summary, _priced(config), "figures 5 to 8")
    for count in (2, 5, 10):
        data = f"cifar{count}"
        yield _row(
            f"{data}-sr",
            f"statically routed nets of 1 to 8 layers, {count} classes of CIFAR-10",
            _statics(Config(dataset=data)),
            "figure 9",
        )
        yield _row(
            f"{data}-ac",
            f"actor chains over 8 prices, {count} classes of CIFAR-10",
            _priced(_dynamic("actor", dataset=data)),
            "figure 9",
        )
    for short, family in _FAMILIES.items():
        for topology in ("chain", "tree"):
            branch = "-tree" if topology == "tree" else ""
            yield _row(
                f"hybrid-{short}{branch}-dynkcpt",
                f"one {family} {topology} for all prices, which are its input",
                (_dynamic(family, topology=topology, dyn_k_cpt=True),),
                "figure 8",
            )


def _wide() -> Iterator[Experiment]:
    """Wider nets, whose prices the published program does not tell: ours fall with
    the square of the width, so that price times operations keeps its range."""
    for width, word in ((2, "fat"), (3, "fatter")):
        base = Config(dataset="cifar10", width=width)
        yield _row(
            f"cifar10-sr-{word}",
            f"statically routed nets with {width} times the channels",
            _statics(base),
            "figure 10",
        )
        yield _row(
            f"cifar10-ac-{word}",
            f"actor chains with {width} times the channels",
            _priced(base, [price / width**2 for price in K_CPTS]),
            "figure 10",
        )


# The small study: 8x8 digits, schedules compressed to 600 updates.
_DIGITS_PRICES = (0.0, 1e-7, 4e-7, 1.6e-6, 6.4e-6)
_DIGITS = Config(
    dataset="digits",
    arch=("8,8", "8,8", "16", "16"),
    n_iter=600,
    t_log=100,
    lr_half=75.0,
    tau_half=150.0,
    shift=1,
    k_cpts=_DIGITS_PRICES,
    alpha_cpt=1e5,
)

_HYBRID_PRICES = (0.0, 2e-7, 4e-7)
_DIGITS_HYBRID = dataclasses.replace(
    _DIGITS,
    dataset="digits-hybrid",
    arch=("4,4,4", "8,8,8", "16,16", "16"),
    k_cpts=_HYBRID_PRICES,
    valid_fraction=0.1,
    t_log=200,
    eval_rows=2160,
)


def _embedded() -> Iterator[Experiment]:
    """Studies that need no files."""
    replace = dataclasses.replace
    for data, base, about in (
        ("digits", _DIGITS, "8x8 digits"),
        ("digits-hybrid", _DIGITS_HYBRID, "easy and hard digits"),
    ):
        prices = base.k_cpts
        yield _row(
            f"{data}-sr",
            f"statically routed nets, {about}",
            _statics(base),
            "small study: docs/results.md",
        )
        for short, family in _FAMILIES.items():
            own = replace(base, family=family, tau=_TAU[family])
            if (data, family) == ("digits-hybrid", "critic"):
                # Their predictions have to be right within a hundred updates or so.
                own = replace(own, k_cre=0.03, tau=1.0)
            variants = {
                "": ("", own),
                "-notalr": (" without adjusted rates", replace(own, talr=False)),
            }
            if family == "critic":
                variants["-opt"] = (", optimistic", replace(own, optimistic=True))
            for suffix, (more, config) in variants.items():
                yield _row(
                    f"{data}-{short}{suffix}",
                    f"{family} chains over {len(prices)} prices{more}, {about}",
                    _priced(config, prices),
                    "small study: docs/results.md",
                )
            yield _row(
                f"{data}-{short}-dynkcpt",
                f"one {family} chain for all prices, {about}",
                (replace(own, dyn_k_cpt=True),),
                "small study: docs/results.md",
            )


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (*_published(), *_wide(), *_embedded())
}
