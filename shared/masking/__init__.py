"""Masks over the single weights of any model.

A tree of masks (or of their logits) has the structure of the parameters that it masks,
with None where a parameter, or a whole branch, has no mask. A mask has the shape of its
parameter, or fewer entries along axes where blocks of consecutive weights share one: s
entries for D weights, where s divides D, cover D / s weights each, and 1 covers all. A
leading axis counts masks where a function says so.
"""

from shared.masking.algebra import (
    count,
    density,
    intersection,
    invert,
    iomin,
    iou,
    remaining,
    sharing,
    total,
    union,
)
from shared.masking.application import apply_masks, batched_apply, export
from shared.masking.logits import (
    Filter,
    Share,
    block_sizes,
    expand,
    init_logits,
    threshold,
)
from shared.masking.noise import gumbel_noise, logistic_noise
from shared.masking.penalties import (
    density_penalty,
    expected_l0,
    linear_penalty,
    target_density,
)
from shared.masking.samples import draw, gumbel_sigmoid, sample, soft_mask

__all__ = [
    "Filter",
    "Share",
    "apply_masks",
    "batched_apply",
    "block_sizes",
    "count",
    "density",
    "density_penalty",
    "draw",
    "expand",
    "expected_l0",
    "export",
    "gumbel_noise",
    "gumbel_sigmoid",
    "init_logits",
    "intersection",
    "invert",
    "iomin",
    "iou",
    "linear_penalty",
    "logistic_noise",
    "remaining",
    "sample",
    "sharing",
    "soft_mask",
    "target_density",
    "threshold",
    "total",
    "union",
]
