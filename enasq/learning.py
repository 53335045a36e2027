"""What searches and trainings of one architecture share: loss, rate, projection.

References: Pham et al. (2018), section 3; Courbariaux et al. (2016), section 1.3.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax import numpy as jnp
from jaxtyping import Array

from enasq import layers, losses, optimizer, quantization
from enasq.policy import QuantPolicy
from enasq.quantization import Quantizer

AUX_WEIGHT = 0.4
"""Of the loss of an auxiliary head."""

Hyper = Mapping[str, Any]
Metrics = dict[str, Array]


def rate(
    static: Any, step: Array | int, hyper: Hyper, per_epoch: int, epochs: int
) -> Array:
    """Return the learning rate of an update.

    Args:
        static: static part of a config.
        step: updates made before.
        hyper: its traced values.
        per_epoch: updates of an epoch.
        epochs: of the whole training.
    """
    if static.schedule == "cosine":
        settings = {"lr_max": hyper["lr_max"], "lr_min": hyper["lr_min"]}
        if not static.lr_period:
            return optimizer.half_cosine(step, settings | {"steps": epochs * per_epoch})
        settings |= {
            "period": static.lr_period,
            "multiplier": static.lr_multiplier,
            "steps_per_epoch": per_epoch,
        }
        return optimizer.cosine(step, settings, compat=static.compat)
    settings = {
        "lr": hyper["learning_rate"],
        "rate": hyper["lr_decay"],
        "start": 0,
        "every": static.lr_decay_epochs * per_epoch,
    }
    return optimizer.exponential(step, settings)


def make_optimizer(
    static: Any, policy: QuantPolicy, per_epoch: int, epochs: int
) -> Callable[[Hyper], optax.GradientTransformation]:
    """Return `hyper -> optimiser`, which reads the update's number from `step`.

    Args:
        static, per_epoch, epochs: as of `rate`.
        policy: which kernels are latent.
    """
    faster = optax.stateless(lambda updates, _: multiplied(updates, policy))
    make = optimizer.make_optimizer(
        static.optimizer, clip=static.clip, beta1=static.beta1
    )

    def of(hyper: Hyper) -> optax.GradientTransformation:
        step = hyper.get("step", jnp.int32(0))
        told = {
            "learning_rate": rate(static, step, hyper, per_epoch, epochs),
            "clip_bound": hyper["clip_bound"],
            "epsilon": hyper["epsilon"],
        }
        found = make(told | ({"l2": hyper["l2"]} if static.l2 != 0 else {}))
        return optax.chain(found, faster) if static.kernel_rates else found

    return of


def multiplied(updates: Any, policy: QuantPolicy) -> Any:
    """Multiply the updates of latent kernels by their Glorot factors.

    Latent weights fill the whole range [-H, H], whatever the size of a kernel, while a
    Glorot kernel's are the smaller the more inputs there are; the factor keeps the
    time that a weight takes to change its sign.

    Reference: Courbariaux et al. (2015), section 2.5.
    """

    def one(path, leaf):
        names = [part.key for part in path]
        if names[-1] != "kernel":
            return leaf
        latent = any(q.name != "float" for q in owners(names, policy))
        return leaf * layers.rate_multiplier(leaf.shape[-4:]) if latent else leaf

    return jax.tree_util.tree_map_with_path(one, updates)


def objective(
    static: Any, logits: Array, aux: Array | None, labels: Array
) -> tuple[Array, Metrics]:
    """Return the loss of a batch with that of its auxiliary head, and metrics."""
    loss = losses.loss(static.loss, logits, labels)
    accuracy = losses.correct(logits, labels) / len(labels)
    metrics = {"accuracy": accuracy.astype(logits.dtype)}
    if aux is None:
        return loss, metrics
    own = losses.loss(static.loss, aux, labels)
    return loss + AUX_WEIGHT * own, metrics | {"aux_loss": own}


def gradient_norm(static: Any, params: Any, grads: Any, hyper: Hyper) -> Array:
    """Return the norm of a gradient and its l2 penalty, before clipping."""
    l2 = hyper["l2"] if static.l2 != 0 else 0.0
    return optimizer.gradient_norm(grads, params, l2)


def kept(static: Any, policy: QuantPolicy, before: Any, after: Any) -> Any:
    """Return parameters after an update as they may be.

    Latent weights are projected to where they have gradients, and an auxiliary head
    that is not trained stays as it was.
    """
    if static.project:
        after = project(after, policy)
    if "aux_head" in after and not static.train_aux_head:
        after = after | {"aux_head": before["aux_head"]}
    return after


def project(params: dict[str, Any], policy: QuantPolicy) -> dict[str, Any]:
    """Clip all latent kernels of a network to the range where they have gradients."""

    def clip(path, leaf):
        names = [part.key for part in path]
        if names[-1] != "kernel":
            return leaf
        # Banks of shared weights have a leading axis.
        shape = leaf.shape[-4:]
        found = [quantization.latent_range(q, shape) for q in owners(names, policy)]
        limits = [limit for limit in found if limit is not None]
        if len(limits) < len(found):
            return leaf
        lows, highs = zip(*limits, strict=True)
        return layers.project(leaf, (min(lows), max(highs)))

    return jax.tree_util.tree_map_with_path(clip, params)


def owners(names: list[str], policy: QuantPolicy) -> list[Quantizer]:
    """Return the quantisers that a kernel may pass through."""
    first, second = names[0], names[1]
    if "dense" in names:
        return [policy.classifier]
    if first == "stem":
        return [policy.stem]
    if first == "aux_head":
        return [policy.aux_head.weights]
    if policy.choices and second.startswith(("banks", "block")):
        return [own.weights for own in policy.choices]
    return [policy.of_cell(int(first.removeprefix("cell_"))).weights]
