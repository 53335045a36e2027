"""Claim: products that count bits are many times faster than float32 products.

Seconds of float32 over seconds of ours, both compiled, in turn and in one run; the
least time of each is kept.

- binary products of M = N = K = 512, 1024 and 2048: at least 8x with packed operands,
  5x if the left one has yet to be packed; ternary products 4x, products of 2 bits 2.5x;
- layers of a 1x1 convolution, a norm and the sign, of 64 and more channels, from
  float activations to packed ones: at least 3x. Their float form is the faster of a
  matrix product and a convolution. Integer sums that are written out are shown too;
- thin shapes, left to the rule that picks a backend: never below 0.95x;
- depthwise stages are shown: sums packed over channels against shifted products of
  float32, each with norm and sign.

Exit status 1 if a ratio is too low.

    python -m benchmarks.enasq_kernels [--repeats 20] [--sizes 512 1024 2048]
        [--batch 128]
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.mask_step import least
from enasq import bit_conv, bit_depthwise, bitwise, packing, products, thresholds
from enasq.packing import Codes
from shared.layers.conv import depthwise_conv

Run = Callable[[], Any]

CODES = {"binary": ("binary", 1), "ternary": ("ternary", 1), "2-bit": ("signed", 2)}
LEAST = {
    "binary": 8.0,
    "binary, packing": 5.0,
    "ternary": 4.0,
    "2-bit": 2.5,
    "1x1 layer": 3.0,
    "thin": 0.95,
}
THIN = (
    *((32768, 32, 32), (32768, 16, 16), (32768, 64, 32)),
    *((1, 1024, 1024), (1, 4096, 512), (1, 32, 32)),
)


def compiled(fn: Callable, *arguments: Any) -> Run:
    """Compile a program and return what runs it once."""
    options = bitwise.WIDE if jax.default_backend() == "cpu" else None
    program = jax.jit(fn, compiler_options=options).lower(*arguments).compile()
    return lambda: jax.block_until_ready(program(*arguments))


def draw(seed: int, kind: str, bits: int, shape: tuple[int, ...]) -> jax.Array:
    """Return random codes as float32."""
    rng, (low, high) = np.random.default_rng(seed), packing.span(kind, bits)
    codes = rng.integers(low, high + 1, shape)
    return jnp.asarray(np.where(codes, codes, 1 if kind == "binary" else 0), "float32")


def product_runs(m: int, k: int, n: int) -> dict[str, Run]:
    """Return products of one size: float32, and all kinds of codes."""
    runs = {}
    for name, kind in CODES.items():
        a, b = draw(0, *kind, (m, k)), draw(1, *kind, (k, n))
        if not runs:
            runs["float32"] = compiled(jnp.matmul, a, b)
        rows, columns = packing.pack(a, *kind), packing.pack_columns(b, *kind)
        by_words = lambda a, b: products.matmul(a, b, how="words")
        runs[name] = compiled(by_words, rows, columns)
        if name == "binary":
            pack = lambda a, b: products.matmul(Codes(a, "binary"), b, how="words")
            runs["binary, packing"] = compiled(pack, a, columns)
    return runs


def layer_runs(batch: int, channels: int, side: int = 32) -> dict[str, Run]:
    """Return a layer of a 1x1 convolution, a norm and the sign in several forms."""
    x = draw(0, "binary", 1, (batch, side, side, channels))
    w = draw(1, "binary", 1, (1, 1, channels, channels))
    norm = norm_of(channels)
    fold = thresholds.fold_norm(norm, channels, "binary")
    sign = lambda y: jnp.where(thresholds.normalise(y, norm) > 0, 1.0, -1.0)
    convolution = lambda x, w: jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    sums = lambda x, w: bit_conv.conv(packing.pack(x, "binary"), w)
    kernel = packing.pack_columns(w, "binary")
    return {
        "product": compiled(lambda x, w: sign(x @ w[0, 0]), x, w),
        "convolution": compiled(lambda x, w: sign(convolution(x, w)), x, w),
        "packed": compiled(lambda x, w: thresholds.apply(fold, sums(x, w)), x, kernel),
        "sums": compiled(sums, x, kernel),
        "float sums": compiled(lambda x, w: x @ w[0, 0], x, w),
    }


def norm_of(channels: int) -> thresholds.Affine:
    """Return a norm of random statistics."""
    scale, offset, mean = np.random.default_rng(2).normal(size=(3, channels))
    return thresholds.affine(scale, offset, 5 * mean, np.ones(channels), 1e-5)


def thin_runs(m: int, k: int, n: int) -> dict[str, Run]:
    """Return a product of float codes by the rule, and the float32 one."""
    a, b = draw(0, "binary", 1, (m, k)), draw(1, "binary", 1, (k, n))
    by_rule = lambda a, b: products.matmul(Codes(a, "binary"), b)
    return {
        "float32": compiled(lambda a, b: (a @ b).astype(jnp.int32), a, b),
        "by rule": compiled(by_rule, a, packing.pack_columns(b, "binary")),
    }


def depthwise_runs(batch: int, window: int, channels: int = 32) -> dict[str, Run]:
    """Return a depthwise stage with norm and sign, packed and in float32."""
    x = draw(0, "binary", 1, (batch, 32, 32, channels))
    w = draw(1, "binary", 1, (window, window, channels))
    norm = norm_of(channels)
    fold = thresholds.fold_norm(norm, window**2, "binary")

    def in_float(x, w):
        y = depthwise_conv({"kernel": w[:, :, None]}, x, how="auto")
        return jnp.where(thresholds.normalise(y, norm) > 0, 1.0, -1.0)

    def packed(x, w):
        return thresholds.apply_planes(fold, bit_depthwise.depthwise(x, w))

    pair = packing.pack(x, "binary"), packing.pack(w, "binary")
    return {"float32": compiled(in_float, x, w), "packed": compiled(packed, *pair)}


def main() -> int:
    """Print the ratios; return 1 if one is too low."""
    parser = argparse.ArgumentParser(description="Time products of packed codes.")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    low = False

    def report(name: str, base: float, seconds: float, limit: str | None) -> None:
        nonlocal low
        ratio, needed = base / seconds, LEAST.get(limit or "")
        low |= needed is not None and ratio < needed
        words = f"at least {needed:.2f}" if needed else ""
        print(f"{name:36s} {1e3 * seconds:9.3f} ms {ratio:7.2f}x  {words}", flush=True)

    for size in options.sizes:
        seconds = least(product_runs(size, size, size), options.repeats)
        for name in seconds:
            limit = name if name in LEAST else None
            report(f"{name} {size}", seconds["float32"], seconds[name], limit)
    for channels in (64, 128, 256):
        seconds = least(layer_runs(options.batch, channels), options.repeats)
        base = min(seconds["product"], seconds["convolution"])
        name = f"1x1 layer, {channels} channels"
        report(name, base, seconds["packed"], "1x1 layer")
        report("  its sums alone", seconds["float sums"], seconds["sums"], None)
    for size in THIN:
        seconds = least(thin_runs(*size), options.repeats)
        name = "x".join(map(str, size))
        report(f"thin {name}", seconds["float32"], seconds["by rule"], "thin")
    for window in (3, 5):
        seconds = least(depthwise_runs(options.batch, window), options.repeats)
        name = f"depthwise {window}x{window} layer"
        report(name, seconds["float32"], seconds["packed"], None)
    return int(low)


if __name__ == "__main__":
    raise SystemExit(main())
