"""Reference values of packed products, convolutions and thresholds."""

import numpy as np
from jax import numpy as jnp

from enasq import bit_conv, packing, products, thresholds
from tests.parity.runner import Tolerance

EPSILON = 1.001e-5
INPUTS = (
    *("bin_a", "bin_b", "ter_a", "ter_b", "kb_a", "kb_b", "kb_nb"),
    *("conv_x", "conv_w", "conv_stride", "tconv_x", "tconv_w", "tconv_stride"),
    *("bn_scale", "bn_offset", "bn_mean", "bn_var"),
)


def _matches(keys, meta, stem):
    return {"bin_dot", "ter_dot", "kb_dot"} <= keys


def _tolerances(name, npz, dtype):
    if name in INPUTS:
        return None
    # The norm alone is no whole number; it is float32 in both precisions.
    return Tolerance(1e-6) if name == "bn_out" else Tolerance(0.0)


def _run(npz, dtype):
    found = {}
    bits = int(npz["kb_nb"])
    for prefix, kind, width in (
        ("bin", "binary", 1),
        ("ter", "ternary", 1),
        ("kb", "signed", bits),
    ):
        a, b = jnp.asarray(npz[f"{prefix}_a"]), jnp.asarray(npz[f"{prefix}_b"])
        rows = packing.pack(a, kind, width)
        columns = packing.pack(b.T, kind, width)
        if prefix == "bin":
            found["bin_a_packed"], found["bin_bT_packed"] = (
                rows.planes[0],
                columns.planes[0],
            )
        elif prefix == "ter":
            for name, packed in (("a", rows), ("bT", columns)):
                found[f"ter_{name}_mask"], found[f"ter_{name}_sign"] = packed.planes
        else:
            found["kb_a_planes"] = rows.planes
            found["kb_bT_planes"] = columns.planes
        b = packing.pack_columns(b, kind, width)
        found[f"{prefix}_dot"] = products.matmul(rows, b, how="words")
    found["kb_float"] = np.asarray(found["kb_dot"], np.float64) / 4 ** (bits - 1)
    found |= _convolutions(npz)
    return {name: (ours, npz[name]) for name, ours in found.items() if name in npz}


def _convolutions(npz):
    stride = int(npz["conv_stride"])
    x = packing.pack(jnp.asarray(npz["conv_x"]), "binary")
    kernel = packing.pack_columns(jnp.asarray(npz["conv_w"]), "binary")
    found = {
        f"conv_{fill}_pad": bit_conv.conv(x, kernel, strides=stride, fill=fill)
        for fill in ("zero", "one")
    }
    x = packing.pack(jnp.asarray(npz["tconv_x"]), "ternary")
    kernel = packing.pack_columns(jnp.asarray(npz["tconv_w"]), "ternary")
    stride = int(npz.get("tconv_stride", 1))
    acc = bit_conv.conv(x, kernel, strides=stride)
    found["tconv_acc"] = acc
    parts = (npz[f"bn_{name}"] for name in ("scale", "offset", "mean", "var"))
    norm = thresholds.affine(*parts, EPSILON)
    found["bn_out"] = thresholds.normalise(acc, norm)
    bound = npz["tconv_w"][..., 0].size
    for name, kind in (("tern", "ternary"), ("bin", "binary")):
        fold = thresholds.fold_norm(norm, bound, kind)
        found[f"{name}_out"] = packing.unpack(thresholds.apply(fold, acc))
    return found


CASES = ((_matches, _run, _tolerances),)
