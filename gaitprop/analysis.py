"""Studies of the rules' arithmetic that train nothing."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaitprop import networks, rules
from gaitprop.config import Config
from gaitprop.train import inputs
from shared import data, metrics, runs, training
from shared.config import split
from shared.data import batching


def roundoff(
    configs: Sequence[Config],
    *,
    data_dir: str | Path | None = None,
    run: runs.Run | None = None,
    **_: Any,
) -> list[dict[str, Any]]:
    """Measure the round-off of the first layer's GAIT update at initialisation.

    The published form subtracts targets from activities and scales the difference up
    by `gamma^-(L-1)`, and its rounding error with it; the difference form does not.
    The reference is the difference form in float64.

    Args:
        configs: networks to measure, one per depth.
        data_dir: where the data sets lie.
        run: run directory; the record of `step` h is that of h hidden layers.

    Returns:
        One dict per config: `hidden`, relative errors `subtract64`, `subtract32`,
        `difference32`, and the angle of `subtract64` to BP, `angle64`, in degrees.
    """
    rows = []
    for index, config in enumerate(configs):
        dataset = data.load(config.dataset, data_dir)
        batch = batching.slice_rows(dataset.train, 0, config.batch_size)
        with jax.enable_x64(True):
            row = _measure(config, batch, dataset.info.scale)
        if run is not None:
            run.log(int(row["hidden"]), row, index)
        rows.append({"status": "done", **row})
    return rows


def _measure(config: Config, batch: data.Split, scale: int) -> dict[str, float | int]:
    config = dataclasses.replace(config, ortho_weight=0.0, solver="lu")
    static, hyper = split(config)
    key = training.init_key(jax.random.key(config.seed))
    params = networks.init(key, static)
    x = inputs(batch.images, scale)

    def update(dtype: Any, **changes: Any) -> Float[Array, "n n"]:
        cast = lambda tree: jax.tree.map(lambda leaf: leaf.astype(dtype), tree)
        chosen = dataclasses.replace(config, **changes)
        chosen_static, _ = split(chosen)
        own, own_hyper = cast(params), cast({**hyper, "seed": jnp.float64(0)})
        state = rules.init_rule_state(key, own, chosen_static, own_hyper)
        grads, _ = rules.gradients(
            own, state, cast(x), batch.labels, own_hyper, chosen_static
        )
        return grads[0]["kernel"].astype(jnp.float64)

    exact = update(jnp.float64)
    error = lambda value: float(jnp.linalg.norm(value - exact) / jnp.linalg.norm(exact))
    published = update(jnp.float64, form="subtract")
    return {
        "hidden": len(config.widths) - 2,
        "subtract64": error(published),
        "subtract32": error(update(jnp.float32, form="subtract")),
        "difference32": error(update(jnp.float32)),
        "angle64": float(metrics.angle(published, update(jnp.float64, algorithm="bp"))),
    }


ANALYSES = {"roundoff": roundoff}
"""Experiments of kind `analysis` by name, called like `train.train`."""
