"""What shared-weight networks and fixed ones have in common: stem, inputs, heads.

Reference: Pham et al. (2018), section 2.4.
"""

from typing import Any

import jax
from jax import numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from enasq import exact, layers, units
from enasq.behaviour import Behaviour
from enasq.depthwise import explicit
from enasq.plan import Aux, Cell, Plan, Source
from enasq.pointwise import pointwise
from enasq.policy import QuantPolicy
from enasq.quantization import Quantizer
from enasq.units import Images, Norms, Outputs, Tree
from shared.errors import check_choice
from shared.layers import pooling
from shared.layers.dropout import active_key, dropout
from shared.model import Variables

Logits = Float[Array, "batch classes"]

AUX_CHANNELS = (128, 768)
"""Channels of the two convolutions of an auxiliary head."""


def collect(parts: dict[str, Variables]) -> Variables:
    """Join named variables; parts without state leave no name in the state."""
    params = {name: part.params for name, part in parts.items()}
    state = {name: part.state for name, part in parts.items() if part.state}
    return Variables(params, state)


def entry_activations(policy: QuantPolicy, number: int) -> Quantizer | None:
    """Return the quantiser of what factorised reductions read where none is published.

    Args:
        policy: tells whether there is one.
        number: of the cell.
    """
    return policy.of_cell(number).activations if policy.quantize_inputs else None


def init_stem(
    key: Key[Array, ""],
    plan: Plan,
    policy: QuantPolicy,
    *,
    running: bool,
    dtype: DTypeLike = jnp.float32,
) -> Variables:
    """Return the variables of `stem`."""
    inputs, outputs = plan.network.channels, plan.stem
    return units.init_unit(
        key, 3, inputs, outputs, policy.stem, None, running=running, dtype=dtype
    )


def stem(
    params: Tree, state: Tree, x: Images, policy: QuantPolicy, norms: Norms
) -> tuple[Outputs, Tree]:
    """Convolve the images by 3x3 and normalise."""
    if policy.image_bits:
        x = fixed_point_image(x, policy.image_bits)
    y = image_conv(params["conv"], x, policy.stem)
    sums = None
    if norms.mode == "exact":
        shape = params["conv"]["kernel"].shape
        sums = exact.sums_of(policy.stem, shape, policy.image_bits)
    return units.normalize(params, state, y, norms, sums)


def image_conv(
    params: Tree, x: Images, quantizer: Quantizer, *, how: str = "auto"
) -> Outputs:
    """Convolve images of few channels, keeping their size.

    Args:
        params: of `layers.init_conv`.
        x: images.
        quantizer: of the kernel.
        how: "conv", a convolution; "patches", a matrix product of windows, whose
            gradient by the kernel is one too; or "auto": the latter on CPUs.
    """
    check_choice("how", how, ("auto", "conv", "patches"))
    if how == "conv" or (how == "auto" and jax.default_backend() != "cpu"):
        return layers.conv(params, x, quantizer)
    kernel = layers.effective_kernel(params, quantizer)
    rows, columns, _, outputs = kernel.shape
    around = explicit("same", x.shape[1:3], (rows, columns), 1)
    height, width = x.shape[1:3]
    wide = jnp.pad(x, ((0, 0), *around, (0, 0)))
    windows = [
        wide[:, u : u + height, v : v + width]
        for u in range(rows)
        for v in range(columns)
    ]
    return pointwise(jnp.concatenate(windows, -1), kernel.reshape(-1, outputs))


def fixed_point_image(x: Images, bits: int) -> Images:
    """Round images to multiples of 2^(1 - bits) in [-1, 1); they need no gradient."""
    m = 2 ** (bits - 1)
    return jnp.clip(jnp.round(jax.lax.stop_gradient(x) * m), -m, m - 1) / m


def init_source(
    key: Key[Array, ""],
    source: Source,
    filters: int,
    policy: QuantPolicy,
    number: int,
    *,
    running: bool,
    dtype: DTypeLike = jnp.float32,
) -> Variables:
    """Return the variables of `fit`; none where the input stays as it is."""
    if source.fit == "keep":
        return Variables({}, {})
    own = policy.of_cell(number)
    sizes = source.channels, filters, own.weights, own.activations
    if source.fit == "reduce":
        return units.init_reduction(key, *sizes, running=running, dtype=dtype)
    return units.init_unit(key, 1, *sizes, running=running, dtype=dtype)


def fit(
    params: Tree,
    state: Tree,
    x: Images,
    source: Source,
    policy: QuantPolicy,
    number: int,
    norms: Norms,
) -> tuple[Outputs, Tree]:
    """Make an input of a cell what its nodes are like."""
    if source.fit == "keep":
        return x, state
    own = policy.of_cell(number)
    run = units.reduction if source.fit == "reduce" else units.unit
    return run(params, state, x, own.weights, own.activations, norms)


def init_head(
    key: Key[Array, ""],
    inputs: int,
    classes: int,
    policy: QuantPolicy,
    *,
    high: float | int,
    dtype: DTypeLike = jnp.float32,
) -> Tree:
    """Return the parameters of `head`; see `Behaviour` for the range of its kernel."""
    dense, other = jax.random.split(key)
    params = layers.init_dense(dense, inputs, classes, policy.classifier, dtype=dtype)
    if policy.classifier.name == "float" and policy.head.name != "float":
        shape = inputs, classes
        params = {"kernel": jax.random.uniform(dense, shape, dtype, -high, high)}
    return {"dense": params} | units.learned(other, policy.head, inputs, dtype)


def head(
    params: Tree,
    x: Images,
    activations: Quantizer,
    classifier: Quantizer,
    *,
    key: Array | None = None,
    keep: float | int = 1.0,
) -> Logits:
    """Activate, average over all positions, and classify.

    Args:
        params: of `init_head`.
        x: the last cell's output.
        activations, classifier: the quantisers.
        key: draws what is dropped; None drops nothing.
        keep: probability to keep an average.
    """
    y = pooling.global_avg_pool(units.activate(params, activations, x))
    y = dropout(y, 1 - keep, train=key is not None, key=key)
    return layers.dense(params["dense"], y, classifier)


def init_aux(
    key: Key[Array, ""],
    aux: Aux,
    classes: int,
    policy: QuantPolicy,
    *,
    high: float | int,
    dtype: DTypeLike = jnp.float32,
) -> Tree:
    """Return the parameters of `aux_head`, which has no running statistics."""
    first, second, third, other = jax.random.split(key, 4)
    own, (middle, last) = policy.aux_head, AUX_CHANNELS

    def make(key, window, inputs, outputs, activations=None):
        place = key, window, inputs, outputs, own.weights, activations
        return units.init_unit(*place, running=False, dtype=dtype).params

    return {
        "project": make(first, 1, aux.channels, middle),
        "window": make(second, aux.size, middle, last, own.activations),
        "head": init_head(third, last, classes, policy, high=high, dtype=dtype),
    } | units.learned(other, own.activations, aux.channels, dtype)


def aux_head(
    params: Tree, x: Images, aux: Aux, policy: QuantPolicy, norms: Norms
) -> Logits:
    """Return the logits of the auxiliary head, which reads the output of a cell.

    Pool 5x5 with stride 3, convolve by 1x1, convolve over all of the image, and
    classify; statistics are always those of the batch.
    """
    own, norms = policy.aux_head, norms._replace(mode="batch")
    x = units.activate(params, own.activations, x)
    x = pooling.avg_pool(x, 5, stride=3, padding=aux.padding.upper())
    pair: list[Quantizer | None] = [None, own.activations]
    for name, activations in zip(("project", "window"), pair, strict=True):
        x, _ = units.unit(params[name], {}, x, own.weights, activations, norms)
    return head(params["head"], x, own.activations, policy.classifier)


def drop_key(key: Array | None, behaviour: Behaviour, *, train: bool) -> Array | None:
    """Return the key of the head, None where it drops nothing; fails without a key."""
    return active_key(key, 1 - behaviour.keep, train=train)


def cells_of(plan: Plan) -> list[tuple[str, Cell]]:
    """Return the cells by the names of their variables."""
    return [(f"cell_{cell.number}", cell) for cell in plan.cells]


def frozen(tree: Any, behaviour: Behaviour) -> Any:
    """Stop gradients of an auxiliary head that is not trained."""
    return tree if behaviour.train_aux_head else jax.lax.stop_gradient(tree)
