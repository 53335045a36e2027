"""Reading and writing results in the file layout of the published program.

A run is a folder whose name holds its settings,

    {DATASET}_{ALGO}_[Linear_][OrthoInit_]{lambda}OrthoReg_{seed}Seed_{lr}LR_{H}{L|TOWER}

with four series as text (`training_acc.txt`, `training_loss.txt`, `test_acc.txt`,
`test_loss.txt`; one `%.18e` value a line) and for layer k = 0.. `{k}Lweights.npy`
`[n, n]`, rows = inputs, and `{k}Lbiases.npy` `[n]`, float64. Its losses are not the
training objective: see `diagnostics.upstream_losses`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax import numpy as jnp

from gaitprop.networks import Params
from shared.errors import UsageError, check_choice

SERIES = ("training_acc", "training_loss", "test_acc", "test_loss")
DATASETS = {"mnist": "MNIST", "fashion_mnist": "FMNIST", "kmnist": "KMNIST"}
ALGORITHMS = {"bp": "BP", "gait": "GAIT", "tp": "TP"}
NAME = re.compile(
    r"(?P<dataset>MNIST|FMNIST|KMNIST)_(?P<algorithm>BP|GAIT|TP)_"
    r"(?P<linear>Linear_)?(?P<orthogonal>OrthoInit_)?(?P<ortho_weight>[^_]+)OrthoReg_"
    r"(?P<seed>\d+)Seed_(?P<learning_rate>[^_]+)LR_(?P<hidden>\d+)(?P<shape>L|TOWER)"
)


class Settings(NamedTuple):
    """What a folder's name says.

    Attributes:
        dataset: mnist, fashion_mnist or kmnist.
        algorithm: bp, gait or tp.
        linear: whether the transfer function is linear.
        orthogonal: whether the option for orthogonal kernels was given. Without a
            regulariser the published program used them in any case.
        ortho_weight: strength of the regulariser.
        seed: seed of the initial kernels.
        learning_rate: step size.
        hidden: number of hidden layers; meaningless for a tower.
        tower: whether the network is the tower.
    """

    dataset: str
    algorithm: str
    linear: bool
    orthogonal: bool
    ortho_weight: float
    seed: int
    learning_rate: float
    hidden: int
    tower: bool


class Results(NamedTuple):
    """A folder read back: parameters, the series by name, and the name's settings."""

    params: Params
    series: dict[str, np.ndarray]
    settings: Settings | None


def folder_name(settings: Settings) -> str:
    """Return the folder's name; numbers are printed as Python prints floats.

    Raises:
        UsageError: for a data set or rule that the published program did not have.
    """
    check_choice("dataset", settings.dataset, DATASETS)
    check_choice("algorithm", settings.algorithm, ALGORITHMS)
    return (
        f"{DATASETS[settings.dataset]}_{ALGORITHMS[settings.algorithm]}_"
        f"{'Linear_' if settings.linear else ''}"
        f"{'OrthoInit_' if settings.orthogonal else ''}"
        f"{float(settings.ortho_weight)}OrthoReg_{settings.seed}Seed_"
        f"{float(settings.learning_rate)}LR_"
        f"{settings.hidden}{'TOWER' if settings.tower else 'L'}"
    )


def parse_name(name: str) -> Settings | None:
    """Return the settings that a folder's name states, or None for another name."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    names = {theirs: ours for ours, theirs in (DATASETS | ALGORITHMS).items()}
    try:
        weight, rate = float(match["ortho_weight"]), float(match["learning_rate"])
    except ValueError:
        return None
    return Settings(
        names[match["dataset"]],
        names[match["algorithm"]],
        match["linear"] is not None,
        match["orthogonal"] is not None,
        weight,
        int(match["seed"]),
        rate,
        int(match["hidden"]),
        match["shape"] == "TOWER",
    )


def settings_of(config: Any) -> Settings:
    """Return the settings of a config, for the name of its folder."""
    widths = config.widths
    return Settings(
        config.dataset,
        config.algorithm,
        config.transfer == "linear",
        config.init == "orthogonal",
        float(config.ortho_weight),
        int(config.seed),
        float(config.learning_rate),
        len(widths) - 2,
        len(set(widths)) > 1,
    )


def export(
    directory: Path | str,
    settings: Settings,
    params: Params,
    series: Mapping[str, Any],
) -> Path:
    """Write a run in the published layout.

    Args:
        directory: where the run's folder goes.
        settings: decide the folder's name.
        params: parameters with square kernels.
        series: values of each of `SERIES`.

    Returns:
        The folder.

    Raises:
        UsageError: if a series is missing, a kernel is not square, or the folder is
            there already (names leave out gamma and the number of epochs).
    """
    for name in SERIES:
        if name not in series:
            raise UsageError("series", sorted(series), f"all of {', '.join(SERIES)}")
    for layer in params:
        rows, columns = layer["kernel"].shape
        if rows != columns:
            raise UsageError("kernel", (rows, columns), "a square kernel")
    folder = Path(directory) / folder_name(settings)
    if folder.exists():
        raise UsageError("directory", str(folder), "one that does not exist yet")
    folder.mkdir(parents=True)
    for name in SERIES:
        np.savetxt(folder / f"{name}.txt", np.asarray(series[name], np.float64))
    for i, layer in enumerate(params):
        np.save(folder / f"{i}Lweights.npy", np.asarray(layer["kernel"], np.float64))
        np.save(folder / f"{i}Lbiases.npy", np.asarray(layer["bias"], np.float64))
    return folder


def load(folder: Path | str) -> Results:
    """Read a run in the published layout.

    Parameters take JAX's default float dtype.

    Raises:
        UsageError: if a file is missing, unreadable, or of the wrong shape.
    """
    folder = Path(folder)
    depth = len(list(folder.glob("*Lweights.npy")))
    if depth == 0:
        raise UsageError("folder", str(folder), "one that holds 0Lweights.npy")
    layers = []
    for i in range(depth):
        kernel = _array(folder / f"{i}Lweights.npy", 2)
        bias = _array(folder / f"{i}Lbiases.npy", 1)
        if kernel.shape != (len(bias), len(bias)):
            raise UsageError(
                str(folder / f"{i}Lweights.npy"),
                kernel.shape,
                f"a square kernel for {len(bias)} biases",
            )
        layers.append({"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)})
    series = {name: _series(folder / f"{name}.txt") for name in SERIES}
    return Results(tuple(layers), series, parse_name(folder.name))


def _array(path: Path, rank: int) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(str(path), str(error), "a .npy file of numbers") from error
    if array.ndim != rank or array.dtype.kind != "f":
        raise UsageError(
            str(path), f"{array.dtype} {array.shape}", f"floats of rank {rank}"
        )
    return array.astype(np.dtype(jnp.result_type(float)))


def _series(path: Path) -> np.ndarray:
    try:
        return np.loadtxt(path, ndmin=1)
    except (OSError, ValueError) as error:
        raise UsageError(str(path), str(error), "one number a line") from error
