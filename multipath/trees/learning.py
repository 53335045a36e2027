"""One update: the gradients of a family's objective, scaled and with momentum.

Reference: McGill and Perona (2017), section 3.4 and the published program.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from multipath.trees import forward, objectives
from multipath.trees import net as networks
from multipath.trees.net import Net
from multipath.trees.objectives import Hyper


class Batch(NamedTuple):
    """Images in [0, 1] and one-hot targets."""

    images: Float[Array, "batch height width channels"]
    targets: Float[Array, "batch classes"]


class Gradients(NamedTuple):
    """What one pass gives to learn from.

    Attributes:
        raw: of the objective.
        scaled: by the throughput of each node.
        state: new running statistics.
        costs: the objective and the policy.
        record: of the pass.
    """

    raw: PyTree
    scaled: PyTree
    state: PyTree
    costs: objectives.Costs
    record: forward.Record


def gradients(
    net: Net,
    params: PyTree,
    state: PyTree,
    batch: Batch,
    hyper: Hyper,
    *,
    key: Array | None = None,
    axis_name: Any = None,
) -> Gradients:
    """Return the gradients of a network's objective on a batch.

    Args:
        net: which network.
        params, state: its variables.
        batch: what it sees.
        hyper: see `objectives.Hyper`.
        key: for dropout.
        axis_name: mapped axis that the batch is shared over.
    """

    def objective(params):
        record, new = forward.apply(
            net,
            params,
            state,
            batch.images,
            y=batch.targets,
            train=True,
            k_cpt=hyper["k_cpt"],
            alpha_cpt=hyper["alpha_cpt"],
            key=key,
            axis_name=axis_name,
        )
        costs = objectives.costs(net, record, hyper)
        return costs.total, (new, costs, record)

    raw, (new, costs, record) = jax.grad(objective, has_aux=True)(params)
    scales = objectives.throughput_scales(
        net, costs.reach, hyper["alpha_rtr"], axis_name=axis_name
    )
    scaled = raw
    if net.family != "sr":
        scaled = networks.scale_nodes(net, raw, *scales)
    return Gradients(raw, scaled, new, costs, record)


def scheduled(hyper: Hyper) -> Hyper:
    """Let `lr` and `tau` halve every `lr_half` and `tau_half` updates."""
    now = jnp.asarray(hyper["step"], hyper["lr"].dtype)
    return {
        **hyper,
        "lr": hyper["lr"] * 2 ** (-now / hyper["lr_half"]),
        "tau": hyper["tau"] * 2 ** (-now / hyper["tau_half"]),
    }


def make_update(net: Net, *, k_cpts: tuple[float, ...] = (), axis_name: Any = None):
    """Return the update rule of a network.

    Args:
        net: which network.
        k_cpts: prices among which each image's is drawn at each step, for nets that
            take it as an input; none leaves `hyper["k_cpt"]` as it is.
        axis_name: mapped axis that batches are shared over.

    Returns:
        `(params, state, batch, key, hyper) -> (grads, (state, metrics))`, for a step
        that is told its number.
    """

    def update(params, state, batch, key, hyper):
        hyper = scheduled(hyper)
        if net.dyn_k_cpt and k_cpts:
            prices = jnp.asarray(k_cpts, batch.images.dtype)
            drawn = _draw(key, prices, batch.images.shape[0], axis_name)
            hyper = {**hyper, "k_cpt": drawn}
        own = {"key": _dropout_key(net, key, axis_name), "axis_name": axis_name}
        found = gradients(net, params, state, batch, hyper, **own)
        return found.scaled, (found.state, {"loss": found.costs.total})

    return update


def _dropout_key(net: Net, key: Array, axis_name: Any) -> Array | None:
    """Return a stream apart from that of the prices, None if nothing is dropped."""
    if not networks.drops(net):
        return None
    key = jax.random.fold_in(key, 0)
    if axis_name is None:
        return key
    # Devices have images of their own.
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def _draw(key: Array, prices: Array, count: int, axis_name: Any) -> Array:
    """Draw a price for each image by its place in the whole batch."""
    if axis_name is None:
        return jax.random.choice(key, prices, (count,))
    whole = jax.random.choice(key, prices, (count * jax.lax.axis_size(axis_name),))
    first = count * jax.lax.axis_index(axis_name)
    return jax.lax.dynamic_slice_in_dim(whole, first, count)


def make_optimizer(hyper: Hyper) -> optax.GradientTransformation:
    """Return SGD with momentum: v <- mu v + g, θ <- θ - lr v with the lr of now."""
    now = scheduled(hyper) if "step" in hyper else hyper
    return optax.sgd(now["lr"], momentum=hyper["mu"])
