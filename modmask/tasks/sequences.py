"""What tasks from sequences to sequences have in common: losses and scores.

A batch is a dict of `source`, `target` `[batch, time]`, padded with 0 to the longest of
the data set, and `source_length`, `target_length` `[batch]`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Integer, PyTree

from modmask.config import Config
from modmask.models.symbols import append_end, likeliest
from modmask.models.transformer import transformer
from modmask.task import Forward, Task
from shared.model import Model


def task(model: Model, *, teacher_rate: float | int = 1.0) -> Task:
    """Return the task of a network from sequences to sequences.

    In training the network sees the reference with probability `teacher_rate`, one draw
    for each batch. In evaluation it decodes freely.

    Args:
        model: see `encoder_decoder` and `transformer`; its longest output is the width
            of the data's `target`.
        teacher_rate: below 1 for a network that can decode freely while it is trained.
    """

    def loss(
        forward: Forward, batch: PyTree, key: Array, setting: PyTree
    ) -> tuple[Array, dict[str, Array]]:
        del setting
        x = dict(batch)
        if teacher_rate < 1:
            teacher = jax.random.bernoulli(key, teacher_rate)
            x["teacher"] = jnp.broadcast_to(teacher, batch["target_length"].shape)
        logits = forward(x)["logits"]
        mean = cross_entropy(logits, batch["target"], batch["target_length"]).mean()
        return mean, {"loss": mean}

    def evaluate(forward: Forward, batch: PyTree) -> dict[str, Array]:
        reference = batch["target"], batch["target_length"]
        outputs = forward({k: batch[k] for k in ("source", "source_length")})
        right = exact_match(likeliest(outputs["logits"]), outputs["length"], *reference)
        return {
            "accuracy": jnp.mean(right.astype(jnp.float32)),
            "loss": cross_entropy(outputs["logits"], *reference).mean(),
        }

    return Task(model, loss, evaluate)


def transformer_of(
    config: Config, v_in: int, v_out: int, *, max_out: int, remat: bool = False
) -> Model:
    """Return the transformer that a config describes; args as of `transformer`."""
    return transformer(
        v_in,
        v_out,
        width=config.state_size,
        ff_multiplier=config.ff_multiplier,
        tied=config.tied_embeddings,
        heads=config.heads,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        dropout=config.dropout,
        max_out=max_out,
        remat=remat,
    )


def cross_entropy(
    logits: Float[Array, "batch steps symbols"],
    target: Integer[Array, "batch time"],
    length: Integer[Array, " batch"],
) -> Float[Array, " batch"]:
    """Add up -log p of the symbols of each reference and of the end behind it.

    Steps that are not in `logits` count nothing.

    Args:
        logits: the last symbol is the end.
        target: the references.
        length: of the references.
    """
    symbols = append_end(target, length, logits.shape[-1] - 1)
    steps = min(logits.shape[1], symbols.shape[1])
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits[:, :steps], symbols[:, :steps]
    )
    counted = jnp.arange(steps)[None, :] <= length[:, None]
    return jnp.sum(losses, axis=1, where=counted)


def exact_match(
    predicted: Integer[Array, "batch steps"],
    predicted_length: Integer[Array, " batch"],
    target: Integer[Array, "batch time"],
    length: Integer[Array, " batch"],
) -> Bool[Array, " batch"]:
    """Return whether a prediction has the reference's length and all of its symbols.

    Both are first cut to the shorter time axis.
    """
    steps = min(predicted.shape[1], target.shape[1])
    outside = jnp.arange(steps)[None, :] >= length[:, None]
    same = predicted[:, :steps].astype(jnp.int32) == target[:, :steps].astype(jnp.int32)
    return (predicted_length == length) & jnp.all(same | outside, axis=1)


def arrays(
    source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return ids and lengths of both sides as a batch of all rows."""
    return {
        "source": source[0],
        "source_length": source[1],
        "target": target[0],
        "target_length": target[1],
    }


def take(rows: dict[str, np.ndarray], chosen: Any) -> dict[str, np.ndarray]:
    """Return some of the rows."""
    return {name: values[chosen] for name, values in rows.items()}


def join(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Put rows of equal widths behind each other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
