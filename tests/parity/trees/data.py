"""Reference values of data sets, made from synthetic sources."""

import jax
import numpy as np
from jax import numpy as jnp

from multipath.trees import data, recolouring
from shared import chunk
from shared.data import augment
from shared.data.dataset import HostSplit
from tests.parity.runner import Tolerance

INPUTS = {
    "mnist/resize_in",
    "recolor/x",
    "recolor/legacy_seed",
    *(f"augment/{name}" for name in ("x0", "y", "m_sym", "r", "idx", "legacy_seed")),
    *(f"augment/{name}" for name in ("flip", "du", "dv")),
}
SETS = ("mnist", "cifar-10", "cifar-5", "cifar-2", "hybrid")


def _matches(keys, meta, stem):
    return "recolor/out" in keys or any(key.endswith("/x0_tr_sum") for key in keys)


def _tolerances(name, npz, dtype):
    if name in INPUTS:
        return None
    part = name.split("/")[1]
    if part.endswith(("_shape", "sizes", "draws")) or part in ("y_tr", "y_ts", "m_sym"):
        return Tolerance(0.0)
    return Tolerance(1e-6, 1e-6)


def _run(npz, dtype):
    ours = _sets()
    if "mnist/resize_in" in npz:
        ours["mnist/resize_out"] = data.resize(npz["mnist/resize_in"])
    if "recolor/x" in npz:
        ours |= _recoloured(npz)
    if "augment/x0" in npz:
        ours |= _augmented(npz, dtype)
    ours["full_set/sizes"] = _chunks(10, 4)
    return {name: (ours[name], npz[name]) for name in npz if name in ours}


def _sets():
    """Return what the files hold of each set."""
    digits = [_digits(range(10), 2), _digits(range(50, 60), 1)]
    pictures = [_pictures(range(1, 6)), _pictures([6])]
    random = np.random.RandomState(0)
    drawn = [recolouring.colours(len(part.labels), random) for part in digits]
    ours = {}
    for name in SETS:
        for place in (0, 1):
            if name == "mnist":
                split = digits[place]
            elif name == "hybrid":
                split = data.hybrid(digits[place], drawn[place], pictures[place])
            else:
                split = _grouped(name, pictures[place])
            ours |= _described(name, ("tr", "ts")[place], split)
        ours[f"{name}/m_sym"] = _mirrored(name)
    return ours


def _bytes(items, rows, columns):
    i, j = np.arange(rows)[:, None], np.arange(columns)
    texture = 37 * i + 11 * j + 13 * (i * j % 17)
    return np.stack([(texture + 101 * s) % 256 for s in items]).astype(np.uint8)


def _digits(items, each):
    """Return `each` images of each class, shuffled, through the preparation."""
    sheets = _bytes(items, each, 784).reshape(-1, 28, 28)
    labels = np.repeat(np.arange(10, dtype=np.int32), each)
    # A stable sort must bring back the order of the files.
    mixed = np.concatenate([np.arange(10 * each)[start::each] for start in range(each)])
    found = data.by_class(HostSplit(sheets[mixed], labels[mixed]))
    return HostSplit(data.resize(found.images)[..., None], found.labels)


def _pictures(batches):
    planes = _bytes(batches, 10, 3072).reshape(-1, 3, 32, 32)
    labels = [(3 * i + b) % 10 for b in batches for i in range(10)]
    images = data.gamma_decode(planes.transpose(0, 2, 3, 1))
    return HostSplit(images, np.array(labels, np.int32))


def _grouped(name, split):
    kind = data.ARCHIVES[name]
    if kind not in data.MEMBERS:
        return split
    return HostSplit(split.images, data.superclasses(split.labels, kind))


def _described(name, part, split):
    images, labels = split
    rows = {
        "cifar-2": (slice(5, 6), slice(7, 8)),
        "cifar-5": (slice(5, 6), slice(7, 8)),
    }
    row, column = rows.get(name, (slice(2, None, 10), slice(3, None, 10)))
    classes = len(_mirrored(name))
    return {
        f"{name}/x0_{part}_shape": np.array(images.shape),
        f"{name}/x0_{part}_sum": images.sum((1, 2), dtype=np.float64),
        f"{name}/x0_{part}_sub": images[:, row, column],
        f"{name}/y_{part}": np.eye(classes)[labels],
    }


def _mirrored(name):
    return np.array(data.MIRRORED[data.ARCHIVES[name]], int)


def _recoloured(npz):
    random = np.random.RandomState(int(npz["recolor/legacy_seed"]))
    x = npz["recolor/x"]
    drawn = recolouring.colours(len(x), random)
    return {
        "recolor/c0": drawn.paper,
        "recolor/c1": drawn.ink,
        "recolor/n_c1_draws": drawn.tries,
        "recolor/out": recolouring.recolour(x, drawn.paper, drawn.ink),
    }


def _augmented(npz, dtype):
    rows = npz["augment/idx"]
    images = jnp.asarray(npz["augment/x0"][rows], dtype)
    allowed = (npz["augment/y"][rows] @ npz["augment/m_sym"]).astype(bool)
    flipped = augment.flip(images, jnp.asarray(npz["augment/flip"] & allowed))
    moves = (jnp.asarray(npz[f"augment/{name}"]) for name in ("du", "dv"))
    return {
        "augment/out_x": augment.shift(flipped, *moves),
        "augment/out_y": npz["augment/y"][rows],
    }


def _chunks(count, size):
    """Return the sizes of the parts in which a set is evaluated."""
    sizes = []

    def evaluate(state, rows):
        jax.debug.callback(lambda x: sizes.append(len(x)), rows, ordered=True)
        return {"rows": jnp.mean(rows)}

    assess = chunk.make_assess(
        evaluate,
        {"test": jnp.arange(float(count))},
        members=False,
        how="vmap",
        mesh=None,
        size=size,
    )
    assess(())
    jax.effects_barrier()
    return np.array(sizes)


CASES = ((_matches, _run, _tolerances),)
