"""Masks as pictures: which weights each mask keeps, and how decided the logits are."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Shaped

from shared import plotting
from shared.errors import UsageError
from shared.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = 0.2
"""Brightness of weights that the presence mask holds and no other mask keeps."""
SETTLED = 0.01
"""Keep-probabilities up to here are left out of the histogram of the others."""

_FEW = ("0000ff", "ff0000", "00ff00")
_NINE = (
    "e41a1c 377eb8 4daf4a 984ea3 ff7f00 ffff33 a65628 f781bf 999999 ffffff"
).split()
_MANY = (
    "1f77b4 aec7e8 ff7f0e ffbb78 2ca02c 98df8a d62728 ff9896 9467bd c5b0d5 "
    "8c564b c49c94 e377c2 f7b6d2 7f7f7f c7c7c7 bcbd22 dbdb8d 17becf 9edae5"
).split()


def colours(count: int) -> Float32[np.ndarray, "colours 3"]:
    """Return the colours of a picture of some masks: overlap first, then each mask.

    Up to two masks are red and green with blue overlap, up to nine have the colours of
    ColorBrewer's "Set1" (the ninth mask is white), more those of "tab20".

    Raises:
        UsageError: for no masks, or more than there are colours.
    """
    table = _FEW if count <= 2 else _NINE if count <= 9 else _MANY
    if not 1 <= count < len(_MANY):
        raise UsageError("masks", count, f"1 to {len(_MANY) - 1} masks in one picture")
    return np.array(
        [list(bytes.fromhex(c)) for c in table[: count + 1]], np.float32
    ) / (np.float32(255))


def mask_image(
    masks: Sequence[Shaped[np.ndarray | Array, "..."]]
    | Shaped[np.ndarray | Array, "masks ..."],
    presence: Shaped[np.ndarray | Array, "..."] | None = None,
) -> Float32[np.ndarray, "3 height width"]:
    """Draw the masks of one parameter as a picture, a pixel per weight.

    A weight that exactly one mask keeps has the colour of that mask, one that several
    keep the colour of the overlap (see `colours`); one that no mask keeps is dark grey
    if the presence mask keeps it, else black.

    Args:
        masks: K masks of one shape, as truth values or numbers that are not 0 where
            the weight is kept: a kernel `[in, out]` gives a picture `[3, in, out]`, a
            vector `[n]` gives `[3, 1, n]`, and filters `[height, width, in, out]` give
            `[3, in * height * width, out]`.
        presence: one more mask, of the weights to tell from the background.

    Returns:
        Red, green and blue from 0 to 1.

    Raises:
        UsageError: for masks of another shape, or of different shapes.
    """
    flat = [_as_matrix(np.asarray(mask) != 0) for mask in masks]
    palette = colours(len(flat))
    shapes = {m.shape for m in flat}
    background = np.zeros(flat[0].shape, bool)
    if presence is not None:
        background = _as_matrix(np.asarray(presence) != 0)
    if len(shapes | {background.shape}) > 1:
        given = sorted(shapes | {background.shape})
        raise UsageError("masks", given, "masks of one shape")
    stack = np.stack(flat)
    count = stack.sum(axis=0)
    image = np.zeros((*background.shape, 3), np.float32)
    image[background] = GREY
    for mask, colour in zip(stack, palette[1:], strict=True):
        image[mask] = colour
    image[count > 1] = palette[0]
    return np.moveaxis(image, -1, 0)


def mask_images(
    masks: Sequence[Mapping[str, Any]], presence: Mapping[str, Any] | None = None
) -> dict[str, Float32[np.ndarray, "3 height width"]]:
    """Draw several masks of a network: one `mask_image` per parameter.

    Args:
        masks: masks by name of parameter, the same names in each.
        presence: a mask to tell from the background, see `mask_image`.
    """
    behind = presence or {}
    return {
        name: mask_image([mask[name] for mask in masks], behind.get(name))
        for name in masks[0]
    }


def probabilities(logits: Mapping[str, Any]) -> Float[np.ndarray, " weights"]:
    """Return the keep-probabilities σ(logit) of all weights of a network in a row."""
    leaves = [np.asarray(leaf).reshape(-1) for leaf in logits.values()]
    # The tanh form does not overflow for logits that are far below zero.
    return 0.5 * (1 + np.tanh(0.5 * np.concatenate(leaves)))


def histograms(logits: Mapping[str, Any]) -> dict[str, Float[np.ndarray, " values"]]:
    """Return the values behind the two histograms of a mask in training.

    Returns:
        `mask_histogram`: the probability of every weight to be kept, and
        `mask_histogram_nonzero`: those above `SETTLED`.
    """
    kept = probabilities(logits)
    return {"mask_histogram": kept, "mask_histogram_nonzero": kept[kept > SETTLED]}


def show(
    run: Run,
    step: int,
    stage: str,
    number: int,
    logits: Mapping[str, Any],
    member: int | None = None,
) -> None:
    """Show a mask in training: in the sinks, and as a picture of the run.

    The sinks get `analyzer/<stage>/masks/<parameter>` and the two histograms, under
    their names and the number of the stage; the picture `figures/mask_<stage>` of the
    run or member is replaced each time.

    Args:
        run: open for writing.
        step: updates made so far.
        stage, number: what the mask is for.
        logits: by name of parameter.
        member: whose mask it is.
    """
    for name, image in mask_images([_kept(logits)]).items():
        run.picture(step, f"analyzer/{stage}/masks/{name}", image, member)
    for name, values in histograms(logits).items():
        run.histogram(step, f"{name}/{number}", values, member)
    if member is None or not run.members:
        place = run.figures
    else:
        place = run.members[member] / "figures"
    title = f"mask {stage}, step {step}"
    plotting.save(overview(logits, title=title), place / f"mask_{stage}")


def _kept(logits: Mapping[str, Any]) -> dict[str, Bool[np.ndarray, "..."]]:
    return {name: np.asarray(leaf) > 0 for name, leaf in logits.items()}


def overview(logits: Mapping[str, Any], *, title: str = "") -> "Figure":
    """Draw the mask l > 0 of each parameter, and the histogram of the probabilities.

    Args:
        logits: by name of parameter.
        title: stands above all panels.
    """
    images = mask_images([_kept(logits)])
    columns = min(4, len(images) + 1)
    rows = -(-(len(images) + 1) // columns)
    figure, axes = plotting.figure(rows, columns, width=3, height=2.8, title=title)
    for axis, (name, image) in zip(axes.flat, images.items(), strict=False):
        axis.imshow(np.moveaxis(image, 0, -1), aspect="auto", interpolation="nearest")
        axis.grid(visible=False)
        if image.shape[1] == 1:
            axis.set_yticks([])
        kept = 100 * float(image.max(axis=0).mean())
        plotting.describe(axis, title=f"{name}\n{kept:.1f} % kept")
    axis = axes.flat[len(images)]
    axis.hist(probabilities(logits), bins=50, range=(0, 1), color=plotting.PALETTE[0])
    plotting.describe(axis, x="probability to be kept", y="weights", log_y=True)
    for axis in axes.flat[len(images) + 1 :]:
        axis.set_axis_off()
    return figure


def _as_matrix(mask: Bool[np.ndarray, "..."]) -> Bool[np.ndarray, "height width"]:
    if mask.ndim == 1:
        return mask[None]
    if mask.ndim == 2:
        return mask
    if mask.ndim == 4:
        height, width, inputs, outputs = mask.shape
        rows = mask.transpose(2, 0, 1, 3)
        return rows.reshape(inputs * height * width, outputs)
    allowed = "masks [n], [in, out] or [height, width, in, out]"
    raise UsageError("masks", mask.shape, allowed)
