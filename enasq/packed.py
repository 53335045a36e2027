"""Networks of runs as packed files, checked against the networks themselves."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from enasq import data, exact, export, fixed, retrain, running
from shared.model import Variables

SUFFIX = ".enasq"


def write(
    own: retrain.Training, variables: Variables, path: Path, sets: data.Sets
) -> dict[str, Any]:
    """Write a trained network: packed, or as floats if its policy is not deployable.

    A warning tells why the file of a quantised network holds floats.

    Args:
        own: what was trained.
        variables: of the network.
        path: of the file.
        sets: whose test images it is checked on.

    Returns:
        `file`, `file_bytes`, `file_accuracy` on the test images, and `same_labels`, the
        part of them that get the label of the network itself.
    """
    norm = sets.info.norms.test
    why = exact.obstacle(own.net.plan.network, own.net.policy, own.net.arc)
    if why and own.net.policy.stem.name != "float":
        warnings.warn(f"{path.name} is written in float32: {why}", stacklevel=2)
    save = export.export_float if why else export.export
    save(
        own.net,
        variables,
        path,
        mean=norm.mean,
        std=norm.std,
        labels=sets.info.class_names,
    )
    images, labels = map(np.asarray, sets.test)
    found = running.run_packed(path, images).labels
    predict = jax.jit(lambda x: fixed.run(own.net, variables, x, train=False).logits)
    logits = predict(data.whole(sets, "test").images)
    expected = np.asarray(jnp.argmax(logits, -1))
    return {
        "file": path.name,
        "file_bytes": path.stat().st_size,
        "file_accuracy": float(np.mean(found == labels)),
        "same_labels": float(np.mean(found == expected)),
    }


def words(written: Mapping[str, Any]) -> str:
    """Return what `write` has found, as a line."""
    return (
        f"{written['file']}: {written['file_bytes']:,} bytes, "
        f"{100 * written['file_accuracy']:.2f} % of the test images right, "
        f"{100 * written['same_labels']:.2f} % with the label of the trained network"
    )
