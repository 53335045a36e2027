"""What files of attention and of whole sequence models have in common."""

import functools

import jax
import numpy as np

from modmask.names import original_name
from shared import masking
from tests.parity.modmask.convert import from_tree, to_tree
from tests.parity.runner import Tolerance

INPUTS = ("in/", "param/", "logit/", "uniform/", "cot/")
COMPILER = {"xla_backend_optimization_level": 0}


def tolerance(name, npz, dtype):
    """Return the bounds of an output, None for an input."""
    if name == "n_samples" or name.startswith(INPUTS):
        return None
    if npz[name].dtype.kind in "iub":
        return Tolerance(0.0)
    if dtype == np.float64:
        return Tolerance(1e-9, 1e-11)
    return Tolerance(1e-3 if "grad_" in name else 2e-4, 1e-5)


def starts(*prefixes):
    """Match files by how their names start."""
    return lambda keys, meta, stem: stem.startswith(prefixes)


def compiled(fn):
    """Compile quickly: nothing here is worth optimising."""
    return jax.jit(fn, compiler_options=COMPILER)


def choose_heads(width, outputs, golden):
    """Return the number of heads, which no file holds, that gives the outputs."""
    errors = {}
    # A single head, which is unlikely, comes last.
    for heads in [n for n in range(2, width + 1) if width % n == 0] + [1]:
        gap = np.asarray(outputs(heads), np.float64) - golden
        errors[heads] = float(np.linalg.norm(gap))
        if errors[heads] < 1e-3 * np.linalg.norm(golden):
            return heads
    return min(errors, key=lambda heads: errors[heads])


class File:
    """The trees of one file.

    Attributes:
        params, logits: as ours.
        masks: `(logits) -> masks` with a leading axis of samples.
    """

    def __init__(self, npz, like, dtype, heads=1, name=original_name):
        self.npz, self.samples = npz, int(npz["n_samples"])
        self.how = {"heads": heads, "name": name}
        tree = functools.partial(to_tree, like=like, dtype=dtype, **self.how)
        self.params = _turn_tables(tree(npz, "param/"))
        self.logits = tree(npz, "logit/")
        # The draws of a single sample have no axis of samples.
        one = {k: v[:, None] for k, v in npz.items() if k.startswith("uniform/")}
        self.uniform = tree(one if self.samples == 1 else npz, "uniform/")

    def masks(self, logits):
        """Return the masks that the file's uniform draws make."""
        return masking.sample(logits, self.samples, uniform=self.uniform)

    def gradients(self, grads, prefix):
        """Return gradients of (logits, params) under golden names."""
        found = {}
        for kind, tree in zip(("logit", "param"), grads, strict=True):
            tree = _turn_tables(tree)
            found |= from_tree(tree, f"{prefix}grad_{kind}/", **self.how)
        return {name: value for name, value in found.items() if name in self.npz}


def _turn_tables(tree):
    """Transpose embeddings, which are laid out alike here and in the files."""
    turn = lambda path, leaf: leaf.T if "table" in str(path[-1]) else leaf
    return jax.tree_util.tree_map_with_path(turn, tree)


def pairs(ours, npz):
    """Put the golden arrays beside ours."""
    return {k: (value, npz[k]) for k, value in ours.items() if k in npz}


def count_layers(npz, name):
    """Return how many of the numbered layers a file holds."""
    return sum(f"param/{name.format(i)}" in npz for i in range(20))
