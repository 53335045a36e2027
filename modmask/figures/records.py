"""What figures are drawn from: finished runs, grouped by network, and their numbers."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from modmask import results
from shared import runs, trained
from shared.plotting import NothingToDraw

USUAL_WEIGHT = 1e-4
"""Mask loss weight of all published addition and multiplication but one study."""
CLASSES = "plane auto bird cat deer dog frog horse ship truck".split()
"""Of CIFAR-10, short."""

# What says nothing about which function a network has learned, or how.
_NOT_IN_LABELS = (
    "seed eval_every checkpoint_every mask_how mask_noise plot_masks restore "
    "analysis only_control"
).split()
_SHAPES = {(400, 400, 200): "small", (800,) * 4: "medium", (2000,) * 4: "big"}
_SHAPES[(4000,) * 4] = "huge"


class Member(NamedTuple):
    """One trained network with its masks.

    Attributes:
        path: directory of the run, or of the run's member.
        config: its settings.
        results: what `results.json` says.
    """

    path: Path
    config: dict[str, Any]
    results: dict[str, float]


Groups = dict[str, list[Member]]


def collect(
    paths: Sequence[Path],
    tasks: Collection[str] = (),
    where: Callable[[dict[str, Any]], bool] = lambda config: True,
    ignore: Sequence[str] = (),
) -> list[Member]:
    """Read the networks of some runs, oldest first.

    Of several with the same settings, seed included, the last one that has results
    stands for all: they are no repetitions.

    Args:
        paths: run directories.
        tasks: names of tasks; none means all.
        where: further condition on the settings.
        ignore: settings that do not change what the figure shows: of networks that
            differ in nothing else only one counts.
    """
    found: dict[str, Member] = {}
    for path in paths:
        for place in runs.members(path) or [path]:
            config = runs.read_config(place)["config"]
            if (tasks and config["task"] not in tasks) or not where(config):
                continue
            member = Member(Path(place), config, results.read(place))
            told = {k: v for k, v in config.items() if k not in ignore}
            name = json.dumps(told, sort_keys=True)
            if member.results or name not in found:
                found[name] = member
    return list(found.values())


def with_key(members: Sequence[Member], *keys: str) -> list[Member]:
    """Return the members whose results have all of some keys.

    Raises:
        NothingToDraw: if there is none.
    """
    chosen = [m for m in members if all(key in m.results for key in keys)]
    if not chosen:
        raise NothingToDraw(f"no run with results of {keys[0]}")
    return chosen


def with_prefix(members: Sequence[Member], prefix: str) -> list[Member]:
    """Return the members that have results under a prefix.

    Raises:
        NothingToDraw: if there is none.
    """
    has = lambda member: any(key.startswith(prefix) for key in member.results)
    chosen = [member for member in members if has(member)]
    if not chosen:
        raise NothingToDraw(f"no run with results under {prefix}")
    return chosen


def by_network(members: Sequence[Member], shown: Sequence[str] = ()) -> Groups:
    """Group members by network, and by what else tells those of one network apart.

    Args:
        members: trained networks.
        shown: settings that the figure shows in another way.
    """
    networks: Groups = {}
    for member in sorted(members, key=_order):
        networks.setdefault(network(member.config), []).append(member)
    groups: Groups = {}
    for name, inside in networks.items():
        inside = _usual(inside) if "mask_loss_weight" not in shown else inside
        ignored = [*_NOT_IN_LABELS, *shown]
        fields = trained.telling_fields([m.config for m in inside], ignore=ignored)
        for member in inside:
            more = [f"{field} {_written(member.config[field])}" for field in fields]
            groups.setdefault(", ".join([name, *more]), []).append(member)
    return groups


def _usual(members: list[Member]) -> list[Member]:
    """Leave the study of the mask loss weight out where its usual value is there."""
    weights = {m.config["mask_loss_weight"] for m in members}
    if (
        not members[0].config["task"].startswith("addmul")
        or USUAL_WEIGHT not in weights
    ):
        return members
    return [m for m in members if m.config["mask_loss_weight"] == USUAL_WEIGHT]


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "-".join(map(_written, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_feedforward(config: Mapping[str, Any]) -> bool:
    """Tell whether a network of an arithmetic task, or of MNIST, has plain layers."""
    return "_ff" in config["task"] or config["task"] == "permuted_mnist"


def _order(member: Member) -> tuple:
    config = member.config
    sizes = config["layer_sizes"] if is_feedforward(config) else []
    wide = sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))
    kind = config["task"].removeprefix("trafo_")
    kind = kind.replace("addmul_ff", "addmul").replace("tuple_ff", "tuple")
    return kind, not is_feedforward(config), config["task"], wide, config["tuple_mode"]


def network(config: Mapping[str, Any]) -> str:
    """Name the network of an experiment."""
    task = config["task"]
    if is_feedforward(config):
        copied = ", copied weights" if task.endswith("copyweight") else ""
        return f"FNN {shape(config['layer_sizes'])}{copied}"
    if task == "scan":
        return "LSTM"
    if task in ("trafo_scan", "deepmind_math"):
        return "transformer"
    if "resnet" in task:
        return f"ResNet-{config['resnet_depth']}"
    if task.startswith("cifar10"):
        return "simple CNN" if config["cnn_dropout"] else "CNN without dropout"
    mode = f", {config['tuple_mode']}" if task == "tuple" else ""
    return f"RNN {config['layers']}×{config['state_size']}{mode}"


def full_stage(config: Mapping[str, Any]) -> str:
    """Return the name of the stage that trains the mask of the full task."""
    task = config["task"]
    if task.endswith("scan"):
        return config["scan_train_split"]
    if task.startswith("tuple"):
        return "0"
    arithmetic = task.startswith("addmul") or task == "deepmind_math"
    return "verify" if arithmetic else "baseline"


def stage_name(config: Mapping[str, Any], stage: str) -> str:
    """Return what a figure calls the mask of a stage."""
    if stage == full_stage(config):
        return "full"
    if config["task"].startswith("tuple"):
        return f"pair {stage}"
    if config["task"].startswith("cifar10") and stage.isdigit():
        return f"without {CLASSES[int(stage)]}"
    return {"add": "+", "mul": "×"}.get(stage, stage.replace("_", " "))


def shape(sizes: Sequence[int], *, nickname: bool = False) -> str:
    """Write the sizes of hidden layers, such as "800×4" or "400-400-200".

    Args:
        sizes: units of each layer.
        nickname: put the published name of the size before it, on its own line.
    """
    equal = len(sizes) > 1 and len(set(sizes)) == 1
    text = f"{sizes[0]}×{len(sizes)}" if equal else "-".join(map(str, sizes))
    name = _SHAPES.get(tuple(sizes), "")
    return f"{name}\n{text}" if nickname and name else text


def values(
    members: Sequence[Member], key: str, scale: float | int = 1
) -> Float[np.ndarray, " found"]:
    """Return a result of each member that has it, times a factor."""
    found = [m.results[key] for m in members if key in m.results]
    return scale * np.array(found, float)


def differences(
    members: Sequence[Member], first: str, second: str, scale: float | int = 1
) -> Float[np.ndarray, " found"]:
    """Return one result less another of each member that has both."""
    both = [m.results for m in members if first in m.results and second in m.results]
    return scale * np.array([r[first] - r[second] for r in both], float)


def names_under(members: Sequence[Member], prefix: str) -> list[str]:
    """Return what follows a prefix in the results, in the order of first occurrence."""
    keys = dict.fromkeys(key for m in members for key in m.results)
    return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]


def weight_names(members: Sequence[Member], prefix: str) -> list[str]:
    """Return the weights, without biases, that have a result under a prefix."""
    found = names_under(members, prefix)
    weights = [n for n in found if "weight" in n and "/" not in n]
    return sorted(weights, key=_layer_order)


def _layer_order(name: str) -> tuple:
    numbers = [int(part) for part in name.split("_") if part.isdigit()]
    return name.startswith("out"), numbers, "hh" in name, name


def layer_names(names: Sequence[str]) -> list[str]:
    """Return short names of weights: "layer 1", "lstm_1_ih", "output".

    Args:
        names: of all weights of one network, in the order of `weight_names`.
    """
    short = []
    for name in names:
        parts = name.split("_")
        if name.startswith("layers_"):
            last = name == names[-1]
            short.append("output" if last else f"layer {int(parts[1]) + 1}")
        elif name.startswith("lstm_cells_"):
            short.append(f"lstm_{int(parts[2]) + 1}_{parts[-1]}")
        else:
            short.append("output" if parts[0].startswith("out") else name)
    return short


def export(member: Member, name: str) -> Shaped[np.ndarray, "..."] | None:
    """Read an exported array, or None if there is none of this name."""
    file = member.path / "export" / f"{name}.npy"
    return np.load(file) if file.exists() else None


def final_logits(
    member: Member, stage: int | str
) -> dict[str, Shaped[np.ndarray, "..."]] | None:
    """Read the logits of a mask by name of parameter, or None if they are not there.

    Args:
        member: trained network.
        stage: number or name of the mask's stage.
    """
    for file in sorted((member.path / "export" / "stage_final_masks").glob("*.npz")):
        with np.load(file) as archive:
            if stage in (int(file.stem.removeprefix("stage_")), str(archive["stage"])):
                return {k: archive[k] for k in archive.files if k != "stage"}
    return None
