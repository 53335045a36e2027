"""Reference values of descriptions and of their text."""

import re
from pathlib import Path

import jax
import numpy as np
from jax import numpy as jnp

from multipath.trees import descriptions, forward, objectives, statistics
from tests.parity import runner
from tests.parity.runner import Tolerance, meta
from tests.parity.trees import convert

GOLDEN = Path(__file__).parents[2] / "golden" / "trees"
INPUTS = {"params_from", "x_tr", "y_tr", "x_ts", "y_ts", "batch", "k_cpt"}


def _matches(keys, meta, stem):
    return {"params_from", "desc_json", "rendered"} <= keys


def _tolerances(name, npz, dtype):
    if name in INPUTS:
        return None
    return Tolerance(0.0, 2e-5) if name == "desc_json" else Tolerance(0.0)


def _run(npz, dtype):
    # The parameters are in another file of the same folder.
    folder = getattr(npz, "folder", GOLDEN)
    source = runner.load(folder / f"{npz['params_from']}.npz")
    settings = meta(source)
    net = convert.network(settings, convert.text(source, "layer_index"))
    hyper = convert.hyper(settings, dtype)
    if npz["k_cpt"] >= 0:
        hyper["k_cpt"] = jnp.asarray(npz["k_cpt"], dtype)[None]
    tree = convert.variables(
        net, source["params"], convert.text(source, "param_index"), dtype
    )

    @jax.jit
    def means(x, y):
        record, _ = forward.apply(
            net, *tree, x, y=y, k_cpt=hyper["k_cpt"], alpha_cpt=hyper["alpha_cpt"]
        )
        reach = objectives.costs(net, record, hyper).reach
        return statistics.means(net, record, reach, y)

    found = [
        means(*(jnp.asarray(npz[f"{name}_{part}"], dtype) for name in "xy"))
        for part in ("tr", "ts")
    ]
    ours = descriptions.describe(net, *found)
    golden, text = convert.text(npz, "desc_json"), str(npz["rendered"])
    name = text.split("\n")[1].removeprefix("│ ")
    numbers, wanted = _numbers(ours), _numbers(golden)
    if numbers.keys() != wanted.keys():
        raise AssertionError(f"entries differ: {numbers.keys() ^ wanted.keys()}")
    # Operation counts are large: without the scale nothing else would matter.
    scale = np.array([max(1.0, abs(value)) for value in wanted.values()])
    same = descriptions.render(golden, name) + _masked(descriptions.render(ours, name))
    return {
        "desc_json": (
            np.array([numbers[key] for key in wanted]) / scale,
            np.array(list(wanted.values())) / scale,
        ),
        "rendered": (_letters(same), _letters(text + _masked(text))),
    }


def _numbers(entry, place=""):
    """Return the numbers of nested entries by place; a text becomes part of it."""
    if isinstance(entry, dict):
        pairs = entry.items()
    elif isinstance(entry, list):
        pairs = enumerate(entry)
    elif isinstance(entry, str):
        return {f"{place}={entry}": 0.0}
    else:
        return {place: float(entry)}
    found = {f"{place}#": float(len(entry))}
    for key, value in pairs:
        found |= _numbers(value, f"{place}/{key}")
    return found


def _masked(text):
    """Leave the numbers out, whose last digits may differ."""
    return re.sub(r"=[^;)]*", "=", text)


def _letters(text):
    return np.array([ord(letter) for letter in text])


CASES = ((_matches, _run, _tolerances),)
