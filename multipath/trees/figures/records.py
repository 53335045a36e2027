"""Trained networks as run directories hold them, sorted into the curves of figures."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from multipath.trees import descriptions
from multipath.trees.config import Config, channels, network
from shared import runs, trained
from shared.config import from_dict
from shared.plotting import NothingToDraw

PREFERRED = (
    *("hybrid", "digits-hybrid", "digits"),
    *("mnist", "cifar10", "cifar5", "cifar2"),
)
"""Data of the figures of one data set: the first of these that there are runs of."""

# What a curve runs over, or what says nothing about the result.
_NOT_IN_LABELS = (
    "seed",
    "depth",
    "k_cpt",
    "k_cpts",
    "t_log",
    "eval_rows",
    "checkpoint_every",
)


# What may differ between two trainings of the same network.
_INCIDENTAL = {"t_log": 1, "eval_rows": 0, "checkpoint_every": 0, "depth": 0}


class Member(NamedTuple):
    """One trained network.

    Attributes:
        config: its settings.
        records: those with statistics.
        created: when its run began, in ISO form.
    """

    config: Config
    records: list[dict[str, Any]]
    created: str = ""


class Point(NamedTuple):
    """One network at one price, repeated over seeds.

    Attributes:
        order: its depth, or the price of an operation.
        members: the repetitions.
        prices: which of its own prices it is to each of them, if they are adaptive.
    """

    order: float
    members: list[Member]
    prices: list[int | None]


class Curve(NamedTuple):
    """The networks that a curve joins.

    Attributes:
        more: what tells it from other curves of its kind; empty if there is no other.
        points: in rising order.
    """

    more: str
    points: list[Point]


def collect(paths: Sequence[Path], where: Callable[[Config], bool]) -> list[Member]:
    """Read the networks of some runs that have statistics.

    Args:
        paths: run directories.
        where: condition on the config.
    """
    found = []
    for path in paths:
        for place in runs.members(path) or [path]:
            document = runs.read_config(place)
            config = from_dict(Config, document["config"])
            if not where(config):
                continue
            key = f"test/{_within(0 if config.dyn_k_cpt else None)}accuracy"
            records = [r for r in runs.read_metrics(place) if key in r]
            if records:
                found.append(Member(config, records, document.get("created", "")))
    return found


class Chosen(NamedTuple):
    """The networks of a figure of one data set.

    Attributes:
        dataset: what they learned.
        members: the networks.
        others: further data sets of which there are such runs.
    """

    dataset: str
    members: list[Member]
    others: tuple[str, ...]


def mixed(paths: Sequence[Path], wanted: Collection[str]) -> Chosen:
    """Return the data set of the main figures and the networks that learned it.

    Args:
        paths: run directories.
        wanted: kinds of networks, as `kind` names them.

    Raises:
        NothingToDraw: if there is none.
    """
    members = collect(paths, lambda c: c.width == 1 and kind(c) in wanted)
    learned = {member.config.dataset for member in members}
    there = [dataset for dataset in PREFERRED if dataset in learned]
    if not there:
        raise NothingToDraw(f"no run with statistics of {' or '.join(wanted)}")
    first, *others = there
    own = [member for member in members if member.config.dataset == first]
    return Chosen(first, own, tuple(others))


def about(dataset: str, others: Sequence[str]) -> list[str]:
    """Say what data a figure shows, if not the paper's alone, and leaves out."""
    texts = [dataset] if others or dataset not in ("", "hybrid") else []
    return texts + [f"runs on {' and '.join(others)} left out"] * bool(others)


def kind(config: Config) -> str:
    """Name what is special about a network: sr, ac, cr-notalr, ac-tree-dynkcpt, ..."""
    if config.family == "sr":
        return "sr"
    marks = {
        "tree": config.topology == "tree",
        "dynkcpt": config.dyn_k_cpt,
        "notalr": not config.talr,
    }
    if config.family == "actor":
        marks |= {"nokdec": config.k_dec == 0, "globopt": not config.stop_grad_p}
        head = "ac"
    else:
        marks |= {"opt": config.optimistic, "clserr": config.use_cls_err}
        head = "cr"
    return "-".join([head, *(mark for mark, on in marks.items() if on)])


def curves(members: Sequence[Member], wanted: str) -> list[Curve]:
    """Join the networks of one kind, apart where their settings differ.

    Args:
        members: networks of one data set.
        wanted: a name that `kind` gives.
    """
    own = [member for member in members if kind(member.config) == wanted]
    if not own:
        return []
    settings = [dataclasses.asdict(member.config) for member in own]
    fields = trained.telling_fields(settings, first=("n_iter",), ignore=_NOT_IN_LABELS)
    groups: dict[tuple, list[Member]] = {}
    for member in own:
        groups.setdefault(tuple(getattr(member.config, f) for f in fields), []).append(
            member
        )
    return [
        Curve(", ".join(map(_named, fields, values)), _points(groups[values]))
        for values in sorted(groups)
    ]


def _points(members: Sequence[Member]) -> list[Point]:
    points: dict[float, Point] = {}
    for member in sorted(_once(members), key=lambda member: member.config.seed):
        config = member.config
        if config.dyn_k_cpt:
            orders = list(enumerate(config.k_cpts))
        elif config.family == "sr":
            orders = [(None, config.depth or len(config.arch))]
        else:
            orders = [(None, config.k_cpt)]
        for price, order in orders:
            point = points.setdefault(order, Point(order, [], []))
            point.members.append(member)
            point.prices.append(price)
    return [points[order] for order in sorted(points)]


def _once(members: Sequence[Member]) -> list[Member]:
    """Keep of equal networks the one that got farthest, the newest of those.

    A network that is trained again is no further seed.
    """
    kept: dict[tuple, Member] = {}
    for member in sorted(members, key=lambda m: (m.records[-1]["step"], m.created)):
        config = member.config
        depth = config.depth or len(config.arch)
        kept[depth, dataclasses.replace(config, **_INCIDENTAL)] = member
    return list(kept.values())


def efficiency(point: Point) -> Float[np.ndarray, "seeds 2"]:
    """Return mean operation counts and test errors at the end of training."""
    found = []
    for member, price in zip(point.members, point.prices, strict=True):
        last, head = member.records[-1], f"test/{_within(price)}"
        found.append([last[f"{head}moc"], 1 - last[f"{head}accuracy"]])
    return np.array(found)


def steps(points: Sequence[Point]) -> list[int]:
    """Return the updates after which the first seeds of all points have a record."""
    common = [{r["step"] for r in point.members[0].records} for point in points]
    return sorted(set.intersection(*common))


def first_node(point: Point, step: int | None = None) -> dict[str, Any]:
    """Return the record of the first transformation, of the first seed.

    Args:
        point: a network.
        step: updates made; None means the last record.
    """
    member, price = point.members[0], point.prices[0]
    metrics = member.records[-1]
    if step is not None:
        metrics = next(r for r in member.records if r["step"] == step)
    classes = len(metrics[f"test/{_within(price)}p_cor_by_cls"][0])
    # The layout needs no images, only a size that the scales divide.
    side = 2 ** len(channels(member.config)[0])
    net = network(member.config, (side, side, 1), classes)
    return descriptions.from_metrics(net, metrics, price)["root"]["sinks"][0]


def _within(price: int | None) -> str:
    return "" if price is None else f"k{price}/"


def _named(field: str, value: Any) -> str:
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    return f"{field} {value:g}" if isinstance(value, float) else f"{field} {value}"
