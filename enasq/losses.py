"""What a network is trained on, by name.

With s = +1 for the true class and -1 for the others, and z the logits, the hinge is
max(0, 1 - s z) and the squared hinge its square, averaged over the classes; softmax is
the cross-entropy. `published_hinge` has s = -3 for the others: its program maps targets
of ±1 as if they were 0 and 1, to 2 s - 1.

References: Courbariaux et al. (2016), section 2.1; Pham et al. (2018).
"""

from collections.abc import Callable

import jax
import optax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from shared.errors import check_choice

Logits = Float[Array, "batch classes"]
Labels = Int[Array, " batch"]


def loss(
    name: str,
    logits: Logits,
    labels: Labels,
    *,
    weights: Float[Array, " batch"] | None = None,
) -> Float[Array, ""]:
    """Return the mean loss of a batch.

    Args:
        name: key of `LOSSES`.
        logits: one row an example.
        labels: classes by number.
        weights: of the examples, 0 for rows that only fill a batch up; by default all
            are 1.
    """
    losses = each(name, logits, labels)
    if weights is None:
        return jnp.mean(losses)
    return jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1)


def each(name: str, logits: Logits, labels: Labels) -> Float[Array, " batch"]:
    """Return the loss of every example."""
    check_choice("loss", name, LOSSES)
    return LOSSES[name](logits, labels)


def correct(logits: Logits, labels: Labels) -> Int[Array, ""]:
    """Count the examples whose largest logit is that of the label."""
    return jnp.sum(jnp.argmax(logits, -1) == labels, dtype=jnp.int32)


def _margins(logits: Logits, labels: Labels, other: float) -> Logits:
    """Return max(0, 1 - s z), with s = `other` for the wrong classes."""
    true = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    # Not `maximum`, whose gradient at a margin of exactly 1 is half.
    return jax.nn.relu(1 - jnp.where(true, logits, other * logits))


def _hinge(logits: Logits, labels: Labels) -> Float[Array, " batch"]:
    return jnp.mean(_margins(logits, labels, -1.0), -1)


def _squared_hinge(logits: Logits, labels: Labels) -> Float[Array, " batch"]:
    return jnp.mean(_margins(logits, labels, -1.0) ** 2, -1)


def _published_hinge(logits: Logits, labels: Labels) -> Float[Array, " batch"]:
    return jnp.mean(_margins(logits, labels, -3.0), -1)


def _softmax(logits: Logits, labels: Labels) -> Float[Array, " batch"]:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


LOSSES: dict[str, Callable[[Logits, Labels], Float[Array, " batch"]]] = {
    "squared_hinge": _squared_hinge,
    "hinge": _hinge,
    "softmax": _softmax,
    "published_hinge": _published_hinge,
}
