"""Reference values of quantisers and quantised layers."""

import functools
import re

import jax
import numpy as np
from jax import numpy as jnp

from enasq import drop_path, layers, scales
from enasq import straight_through as through
from enasq.quantization import Quantizer
from tests.parity.runner import Tolerance
from tests.quick import quick

EQUAL = Tolerance(0.0)

FUNCTIONS = {
    "round_through": through.round_through,
    "hard_sigmoid": through.hard_sigmoid,
    "binary_sigmoid": through.binary_sigmoid,
    "binary_tanh": through.binary_tanh,
    "ternary_tanh": through.ternary_tanh,
}
OF_RANGE = {"binarize": through.binarize, "ternarize": through.ternarize}
OF_BITS = {
    "quantize": through.quantize,
    "quantized_tanh": through.quantized_tanh,
    "quantized_relu": through.quantized_relu,
}


def _function(name):
    """Return the function of names such as quantize_nb4, binarize_H0.5."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    kind, setting = name.rsplit("_", 1)
    if kind in OF_RANGE:
        return lambda x: OF_RANGE[kind](x, float(setting.removeprefix("H")))
    if kind in OF_BITS:
        return lambda x: OF_BITS[kind](x, int(setting.removeprefix("nb")))
    low, high = re.fullmatch(r"clip_through_(m?[\d.]+)_(m?[\d.]+)", name).groups()
    return lambda x: through.clip_through(x, *map(_signed, (low, high)))


def _signed(text):
    return float(text.replace("m", "-"))


def _run_functions(npz, dtype):
    # In single precision always: the values nearest 0 were rounded away there.
    names = sorted({name.split("/")[0] for name in npz if "/" in name})
    x, g = (jnp.asarray(npz[name], jnp.float32) for name in "xg")

    def program(x, g):
        found = {}
        for name in names:
            y, back = jax.vjp(_function(name), x)
            found |= {f"{name}/y": y, f"{name}/grad": back(g)[0]}
        return found

    return {name: (ours, npz[name]) for name, ours in quick(program)(x, g).items()}


def _quantizer(family, settings):
    if family == "quant":
        return Quantizer("kbit", int(settings["bits"]))
    return Quantizer(family, high=float(settings["high"]))


def _run_layers(npz, dtype):
    names = ("N", "H", "C", "F", "k", "stride", "same", "bits", "high")
    settings = dict(zip(names, npz["meta"], strict=True))
    place = {
        "stride": int(settings["stride"]),
        "padding": "same" if settings["same"] else "valid",
    }
    given = {n: jnp.asarray(npz[n], dtype) for n in npz if "/" not in n and n != "meta"}
    program = functools.partial(_layers, settings=settings, place=place)
    found = quick(program)(given)
    return {name: (ours, npz[name]) for name, ours in found.items() if name in npz}


def _layers(given, settings, place):
    found = {}
    for family in ("binary", "ternary", "quant"):
        quantizer = _quantizer(family, settings)

        def conv(x, w, quantizer=quantizer):
            return layers.conv({"kernel": w}, x, quantizer, **place)

        def separable(x, depth, point, quantizer=quantizer, family=family):
            kernels = {"depthwise": depth, "pointwise": point}
            params = {name: {"kernel": w} for name, w in kernels.items()}
            rescale = family == "quant"
            return layers.separable_conv(params, x, quantizer, rescale=rescale, **place)

        def dense(x, w, quantizer=quantizer):
            return layers.dense({"kernel": w}, x, quantizer)

        cases = (
            ("conv", conv, {"x": "x", "w": "w_conv"}, "g"),
            (
                "sep",
                separable,
                {"x": "x", "w_depth": "w_depth", "w_point": "w_point"},
                "g",
            ),
            ("dense", dense, {"x": "x_dense", "w": "w_dense"}, "g_dense"),
        )
        for kind, layer, inputs, cotangent in cases:
            y, back = jax.vjp(layer, *(given[name] for name in inputs.values()))
            found[f"{family}_{kind}/y"] = y
            for name, grad in zip(inputs, back(given[cotangent]), strict=True):
                found[f"{family}_{kind}/grad_{name}"] = grad
    return found


def _run_paper(npz, dtype):
    w = jnp.asarray(npz["W"], dtype)
    whole, channels = (scales.twn_parts(w, scale=s) for s in ("tensor", "channel"))
    alpha = scales.mean_abs(w, "channel")
    found = {
        "twn_delta": whole.delta,
        "twn_alpha": whole.alpha,
        "twn_t": whole.codes,
        "twn_delta_ch": channels.delta.reshape(-1),
        "twn_alpha_ch": channels.alpha.reshape(-1),
        "twn_t_ch": channels.codes,
        "xnor_alpha_ch": alpha.reshape(-1),
        "xnor_w": alpha * through.binarize(w),
        "drop_keep": _keep_rates(npz),
    }
    return {name: (ours, npz[name]) for name, ours in found.items() if name in npz}


def _keep_rates(npz):
    if "drop_meta" not in npz:
        return None
    depth, total, keep = npz["drop_meta"].tolist()
    cells = int(depth) + 2
    steps = jnp.asarray(npz["drop_steps"].astype(np.int64))
    rates = [
        drop_path.keep_rate(keep, cell, cells, steps, int(total))
        for cell in range(cells)
    ]
    return np.stack([np.asarray(rate) for rate in rates], -1)


def _function_tolerance(name, npz, dtype):
    return EQUAL if "/" in name else None


def _layer_tolerance(name, npz, dtype):
    return Tolerance(1e-5, 1e-5) if "/" in name else None


def _paper_tolerance(name, npz, dtype):
    if name in ("W", "drop_steps", "drop_meta"):
        return None
    if name.startswith("twn_t"):
        return EQUAL
    return Tolerance(1e-12 if dtype == np.float64 else 1e-6)


CASES = (
    (
        lambda keys, meta, stem: "binary_sigmoid/y" in keys,
        _run_functions,
        _function_tolerance,
    ),
    (
        lambda keys, meta, stem: {"w_conv", "w_depth", "w_point"} <= keys,
        _run_layers,
        _layer_tolerance,
    ),
    (lambda keys, meta, stem: "twn_delta" in keys, _run_paper, _paper_tolerance),
)
