"""Reference values of node-link diagrams and routing histograms."""

import numpy as np

from multipath.trees.figures import geometry
from tests.parity.runner import Tolerance
from tests.parity.trees import convert

INPUTS = {"desc_json", "descs_json", "r0", "steps"}


def _tolerances(name, npz, dtype):
    return None if name in INPUTS else Tolerance(0.0, 1e-9)


def _is_diagram(keys, meta, stem):
    return {"desc_json", "r0", "centres"} <= keys


def _diagram(npz, dtype):
    link = geometry.node_link(convert.text(npz, "desc_json"), float(npz["r0"]))
    ours = {
        "bounds": link.bounds,
        "centres": link.centres,
        "radii": link.radii,
        "acc_fracs": _dotted(link.accuracy),
        "cls_fracs": _dotted(link.classes),
        "edges": link.edges,
    }
    # NaN where the files have no more parts; no part is negative.
    filled = lambda values: np.where(np.isnan(values), -1, values)
    return {name: (filled(ours[name]), filled(npz[name])) for name in ours}


def _dotted(parts):
    """Write dots as the files do: one whole part."""
    parts = parts.copy()
    dots = np.isnan(parts[:, 0])
    parts[dots, 0] = 1
    return parts


def _is_histogram(keys, meta, stem):
    return {"descs_json", "steps", "hist"} <= keys


def _histogram(npz, dtype):
    records = convert.text(npz, "descs_json")
    return {"hist": (geometry.routing_histogram(records), npz["hist"])}


CASES = (
    (_is_diagram, _diagram, _tolerances),
    (_is_histogram, _histogram, _tolerances),
)
