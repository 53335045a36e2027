"""Arrays under the names and layouts of the golden files, as trees of ours and back.

Golden kernels are `[outputs, inputs]` or `[outputs, inputs, rows, columns]`, and keys
and values of attention share one matrix. Leading axes, such as those of uniform draws
and of mask samples, stay where they are.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modmask.names import original_name

Name = Callable[[str], str]


def to_tree(
    npz: Mapping[str, np.ndarray],
    prefix: str,
    like: Any,
    *,
    dtype: Any = None,
    heads: int = 1,
    name: Name = original_name,
) -> Any:
    """Return a tree of the structure of `like`, with None where the file has nothing.

    Args:
        npz: a file's arrays.
        prefix: what stands before the names: "param/", "uniform/0/", ...
        like: parameters of a network, or their shapes (`jax.eval_shape` of its init).
        dtype: of all but boolean arrays; the default one by default.
        heads: of attention layers.
        name: `(path) -> name`, where the file has other than the full original names.
    """

    def leaf(keys, shaped):
        key = prefix + name(_path(keys))
        array = _kv_part(npz, key, heads) if key not in npz else npz[key]
        if array is None:
            return None
        kind = None if array.dtype == bool else dtype
        return jnp.asarray(ours(array, len(shaped.shape)), kind)

    return jax.tree_util.tree_map_with_path(leaf, like)


def from_tree(
    tree: Any, prefix: str, *, lead: int = 0, heads: int = 1, name: Name = original_name
) -> dict[str, Any]:
    """Return the leaves of a tree under golden names and in golden layouts.

    Args:
        tree: parameters, masks or gradients; None where there are none.
        prefix: what to put before the names.
        lead: number of leading axes before those of the parameter.
        heads: of attention layers, whose keys and values are put together again.
        name: see `to_tree`.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = {
        prefix + name(_path(keys)): theirs(leaf, leaf.ndim - lead)
        for keys, leaf in leaves
    }
    for key in [key for key in found if key.endswith("data_to_k_weight")]:
        values = found.pop(key.replace("data_to_k_", "data_to_v_"))
        merged = merge_kv(found.pop(key), values, heads)
        found[key.replace("data_to_k_", "data_to_kv_")] = merged
    return found


def ours(array: Any, rank: int) -> Any:
    """Turn a golden array of a parameter of so many axes into our layout."""
    return _moved(array, {2: (1, 0), 4: (2, 3, 1, 0)}.get(rank))


def theirs(array: Any, rank: int) -> Any:
    """Undo `ours`."""
    return _moved(array, {2: (1, 0), 4: (3, 2, 0, 1)}.get(rank))


def _moved(array: Any, order: tuple[int, ...] | None) -> Any:
    if order is None:
        return array
    lead = array.ndim - len(order)
    return array.transpose(*range(lead), *(lead + axis for axis in order))


def split_kv(array: Any, heads: int) -> tuple[Any, Any]:
    """Cut rows (2 h + j) P + d into those of keys (j = 0) and of values (j = 1)."""
    *lead, rows, width = array.shape
    apart = array.reshape(*lead, heads, 2, -1, width)
    keys, values = apart[..., 0, :, :], apart[..., 1, :, :]
    shape = (*lead, rows // 2, width)
    return keys.reshape(shape), values.reshape(shape)


def merge_kv(keys: Any, values: Any, heads: int) -> Any:
    """Undo `split_kv`."""
    *lead, rows, width = keys.shape
    parts = [part.reshape(*lead, heads, -1, width) for part in (keys, values)]
    return jnp.stack(parts, axis=-3).reshape(*lead, 2 * rows, width)


def nhwc(images: Any) -> Any:
    """Turn images `[..., channels, height, width]` into ours."""
    return jnp.moveaxis(images, -3, -1)


def nchw(images: Any) -> Any:
    """Undo `nhwc`."""
    return jnp.moveaxis(images, -1, -3)


def _kv_part(npz: Mapping[str, np.ndarray], key: str, heads: int) -> Any:
    for j, part in enumerate(("data_to_k_", "data_to_v_")):
        together = key.replace(part, "data_to_kv_")
        if part in key and together in npz:
            return split_kv(npz[together], heads)[j]
    return None


def _path(keys: Any) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")
