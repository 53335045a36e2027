"""The layers of multipath networks, as frozen dataclasses of their options.

Reference: McGill and Perona, "Deciding How to Decide: Dynamic Routing in Artificial
Neural Networks", ICML 2017 (arXiv 1703.06217), and its published program, whose names
of layers and options are kept.
"""

from dataclasses import dataclass
from typing import Any

from shared.errors import check_choice, check_range

RESIZINGS = ("decimate", "area")


@dataclass(frozen=True)
class NoOp:
    """x."""


@dataclass(frozen=True)
class LinTrans:
    """x w + b over the flattened image.

    Attributes:
        n_chan: outputs.
        k_l2: weight of Σ (w - w_eq)².
        sigma_w: w starts at w_eq + sigma_w / √inputs times a standard normal.
        res: w_eq is the identity instead of 0.
    """

    n_chan: int = 1
    k_l2: float | int = 0.0
    sigma_w: float | int = 1.0
    res: bool = False


@dataclass(frozen=True)
class Conv:
    """Convolution of a window of `supp` x `supp`; options as of `LinTrans`."""

    n_chan: int = 1
    supp: int = 1
    k_l2: float | int = 0.0
    sigma_w: float | int = 1.0
    res: bool = False


@dataclass(frozen=True)
class Rect:
    """max(x, 0)."""


@dataclass(frozen=True)
class Softmax:
    """Softmax over the last axis."""


@dataclass(frozen=True)
class MaxPool:
    """Largest value of windows of `supp` x `supp`, `stride` apart."""

    stride: int = 1
    supp: int = 1


@dataclass(frozen=True)
class GlobalMaxPool:
    """Largest value of each channel."""


@dataclass(frozen=True)
class ToPyramid:
    """The image at `n_scales` sizes, each half of the one before.

    Attributes:
        n_scales: number of sizes.
        method: decimate takes every second pixel (as published: it aliases), area the
            mean of four.
    """

    n_scales: int = 1
    method: str = "decimate"

    def __post_init__(self):
        check_range("n_scales", self.n_scales, low=1)
        check_choice("method", self.method, RESIZINGS)


@dataclass(frozen=True)
class MultiscaleLLN:
    """Local luminance normalisation of colour images at each scale."""

    sigma: float | int = 3.0
    eps: float | int = 1e-3


@dataclass(frozen=True)
class MultiscaleConvMax:
    """Convolution at each scale, plus one of the pooled output of the finer scale.

    Z_0 = b_0 + X_0 * h_0;  Z_s = b_s + X_s * h_s + pool(Z_(s-1)) * v_(s-1).

    Attributes:
        n_chan: channels of each scale that goes out, from the finest on; as many of
            the coarsest scales that come in are used.
        supp: width of the windows, cut to the image.
        k_l2, sigma_w: as of `LinTrans`.
    """

    n_chan: tuple[int, ...] = ()
    supp: int = 1
    k_l2: float | int = 0.0
    sigma_w: float | int = 1.0


@dataclass(frozen=True)
class MultiscaleRect:
    """max(x, 0) at each scale."""


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation over all axes but the last.

    Attributes:
        d: weight of the old running statistics.
        eps: added to the variance.
    """

    d: float | int = 0.9
    eps: float | int = 1e-6


@dataclass(frozen=True)
class MultiscaleBatchNorm:
    """`BatchNorm` at each scale."""

    d: float | int = 0.9
    eps: float | int = 1e-6


@dataclass(frozen=True)
class Select:
    """One scale of several; negative numbers count from the coarsest."""

    i: int = 0


@dataclass(frozen=True)
class Dropout:
    """Inverted dropout, in training alone; `keep` is the probability to stay."""

    keep: float | int = 1.0

    def __post_init__(self):
        check_range("keep", self.keep, low=0, high=1, low_open=True)


@dataclass(frozen=True)
class SquaredError:
    """x, with the error Σ (x - y)²."""


@dataclass(frozen=True)
class CrossEntropyError:
    """x, class probabilities, with the error -Σ y log(eps / K + (1 - eps) x)."""

    eps: float | int = 1e-6


@dataclass(frozen=True)
class SuperclassCrossEntropyError:
    """`CrossEntropyError` with the target y w_cls.

    Attributes:
        w_cls: which of the classes out (columns) each class in (rows) belongs to.
        eps: as of `CrossEntropyError`.
    """

    w_cls: tuple[tuple[float | int, ...], ...]
    eps: float | int = 1e-6


@dataclass(frozen=True)
class ActivityError:
    """x, with alpha Σ x² of each image as its cost of complexity."""

    alpha: float | int = 0.0


@dataclass(frozen=True)
class Chain:
    """Layers in turn; costs and operations add up."""

    comps: tuple[Any, ...] = ()


Layer = (
    NoOp
    | LinTrans
    | Conv
    | Rect
    | Softmax
    | MaxPool
    | GlobalMaxPool
    | ToPyramid
    | MultiscaleLLN
    | MultiscaleConvMax
    | MultiscaleRect
    | BatchNorm
    | MultiscaleBatchNorm
    | Select
    | Dropout
    | SquaredError
    | CrossEntropyError
    | SuperclassCrossEntropyError
    | ActivityError
    | Chain
)

LAYERS: dict[str, type] = {kind.__name__: kind for kind in Layer.__args__}
"""Layers by their published names."""
