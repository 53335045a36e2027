"""Checkpoints that a kill at any moment cannot spoil, on Orbax.

`directory/00000120/` holds one checkpoint: `tree/`, written by Orbax, and
`manifest.json` with the size and checksum of every file and the shape and dtype of
every leaf. It is written under another name and renamed when complete, so that a
directory of that name is either whole or was damaged later, which the manifest shows.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from shared import parallel
from shared.errors import UsageError, check_range

VERSION = 1
"""Version of the written form; a newer one is refused."""

# A step that is saved a second time becomes `STEP-1`, so that the first copy can stay
# until the second is complete.
_NAME = re.compile(r"(\d{8,})(?:-(\d+))?")


def save(
    directory: str | os.PathLike, step: int, tree: PyTree, *, keep: int = 3
) -> None:
    """Write a checkpoint, then remove all but the newest `keep` up to this step.

    Under several processes every one of them calls this; the directory is shared.

    Args:
        directory: where the checkpoints of one run live; created if missing.
        step: number of updates that `tree` has seen.
        tree: arrays, typed keys and Python numbers in any pytree.
        keep: how many checkpoints to keep, this one included.

    Raises:
        UsageError: for a directory that cannot be written, or a leaf that is no number.
    """
    from orbax.checkpoint import v1 as ocp

    check_range("step", step, low=0)
    check_range("keep", keep, low=1)
    directory = Path(directory).absolute()
    leaves = _describe(tree)
    temporary = directory / f".writing-{step:08d}"
    if parallel.is_lead():
        try:
            directory.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        except OSError as error:
            raise UsageError(
                "checkpoint directory", str(directory), f"writable ({error.strerror})"
            ) from error
    parallel.barrier(f"checkpoint {step} begins")
    ocp.save(str(temporary / "tree"), _storable(tree))
    if parallel.is_lead():
        _write_manifest(temporary, step, leaves)
        _commit(directory, temporary, step, keep)
    parallel.barrier(f"checkpoint {step} is written")


def restore(directory: str | os.PathLike, like: PyTree) -> tuple[int, PyTree] | None:
    """Read the newest checkpoint that is whole.

    A damaged one is passed over with a warning that names it and says what is wrong.

    Args:
        directory: where `save` wrote.
        like: a tree of the same structure, shapes and dtypes; leaves are arrays or
            `jax.ShapeDtypeStruct`s, and each result is placed as its leaf here is.

    Returns:
        The step and the tree, or None where no whole checkpoint exists.

    Raises:
        UsageError: for a checkpoint of another tree, naming the leaf, or one written
            by a newer version.
    """
    from orbax.checkpoint import v1 as ocp

    for path in reversed(_checkpoints(Path(directory).absolute())):
        manifest, damage = _verify(path)
        if damage:
            warnings.warn(
                f"checkpoint {path} is damaged ({damage}); trying the one before",
                stacklevel=2,
            )
            continue
        if manifest["version"] > VERSION:
            raise UsageError(
                "checkpoint version", manifest["version"], f"at most {VERSION}"
            )
        _check_same(path, manifest["leaves"], _describe(like))
        targets = _targets(like)
        loaded = ocp.load(str(path / "tree"), targets)
        return manifest["step"], jax.tree.map(_placed, like, loaded)
    return None


def steps(directory: str | os.PathLike) -> list[int]:
    """Return the steps of the checkpoints in a directory, in rising order."""
    return sorted({_order(path)[0] for path in _checkpoints(Path(directory))})


def _order(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


def _checkpoints(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=_order)


def _commit(directory: Path, temporary: Path, step: int, keep: int) -> None:
    """Give a finished checkpoint its name, then remove what it replaces."""
    copies = [_order(p)[1] for p in _checkpoints(directory) if _order(p)[0] == step]
    name = f"{step:08d}-{max(copies) + 1}" if copies else f"{step:08d}"
    os.rename(temporary, directory / name)
    _sync(directory)
    # Later steps were passed over as damaged when this run resumed: they are replaced
    # when it gets there, and must not push out what is good now.
    newest = {}
    for path in _checkpoints(directory):
        if _order(path)[0] <= step:
            newest[_order(path)[0]] = path
    kept = [newest[s] for s in sorted(newest)[-keep:]]
    for path in _checkpoints(directory):
        if _order(path)[0] <= step and path not in kept:
            # Renamed first: a kill must not leave half of it under its name.
            os.rename(path, directory / f".removing-{path.name}")
    for pattern in (".removing-*", ".writing-*"):
        for path in directory.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _write_manifest(path: Path, step: int, leaves: dict[str, str]) -> None:
    files = sorted(p for p in (path / "tree").rglob("*") if p.is_file())
    described = {str(p.relative_to(path)): _fingerprint(p, sync=True) for p in files}
    body = {"version": VERSION, "step": step, "leaves": leaves, "files": described}
    text = json.dumps({"checksum": _checksum(body), "body": body}, indent=1)
    with open(path / "manifest.json", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _verify(path: Path) -> tuple[dict[str, Any], str]:
    """Return the manifest and, for a damaged checkpoint, what is wrong in words."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        body = manifest["body"]
        if manifest["checksum"] != _checksum(body):
            return {}, "manifest.json was altered"
        for name, expected in body["files"].items():
            if not (path / name).is_file():
                return {}, f"{name} is missing"
            size = (path / name).stat().st_size
            if size != expected[0]:
                return {}, f"{name} has {size} bytes instead of {expected[0]}"
            if _fingerprint(path / name) != expected:
                return {}, f"{name} has another checksum"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {}, f"manifest.json cannot be read: {type(error).__name__}"
    return body, ""


def _fingerprint(path: Path, *, sync: bool = False) -> list[Any]:
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [file.tell(), digest]


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _describe(tree: PyTree) -> dict[str, str]:
    """Map the path of each leaf to its dtype and shape in words."""
    described = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path)
        if _is_number(leaf):
            described[name] = type(leaf).__name__
        elif hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
            described[name] = f"{leaf.dtype}{list(leaf.shape)}"
        else:
            raise UsageError(
                f"checkpoint leaf {name}", type(leaf).__name__, "an array or a number"
            )
    return described


def _check_same(path: Path, stored: dict[str, str], wanted: dict[str, str]) -> None:
    for name in [*wanted, *stored]:
        if stored.get(name) != wanted.get(name):
            raise UsageError(
                f"checkpoint {path}, leaf {name or 'root'}",
                stored.get(name, "nothing"),
                wanted.get(name, "nothing"),
                "It was written by a run with another configuration.",
            )


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, int | float) and not isinstance(leaf, np.generic)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_local(leaf: Any) -> bool:
    """Whether an array lives in this process alone, or nobody said where it lives."""
    sharding = getattr(leaf, "sharding", None)
    return sharding is None or sharding.is_fully_addressable


def _everywhere(tree: PyTree) -> NamedSharding:
    """Replicate over the mesh that the tree's global arrays use."""
    meshes = [
        leaf.sharding.mesh
        for leaf in jax.tree.leaves(tree)
        if not _is_local(leaf) and isinstance(leaf.sharding, NamedSharding)
    ]
    mesh = meshes[0] if meshes else Mesh(np.array(jax.devices()), ("all",))
    return NamedSharding(mesh, PartitionSpec())


def _storable(tree: PyTree) -> PyTree:
    """Turn keys into plain words and, under several processes, place all on one mesh.

    Orbax refuses arrays of one process next to arrays of all.
    """

    def plain(leaf):
        if _is_key(leaf):
            return jax.random.key_data(leaf)
        return np.asarray(leaf) if isinstance(leaf, np.generic) else leaf

    tree = jax.tree.map(plain, tree)
    if jax.process_count() == 1:
        return tree
    everywhere = _everywhere(tree)

    def place(leaf):
        if not isinstance(leaf, jax.Array) or not _is_local(leaf):
            return leaf
        return jax.device_put(np.asarray(leaf), everywhere)

    return jax.tree.map(place, tree)


def _targets(like: PyTree) -> PyTree:
    """Describe what Orbax is to load: NumPy arrays where no placement is asked for."""
    several = jax.process_count() > 1
    everywhere = _everywhere(like) if several else None

    def target(leaf):
        if _is_number(leaf):
            return leaf
        data = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
        sharding = getattr(leaf, "sharding", None)
        if several and _is_local(leaf):
            sharding = everywhere
        elif not getattr(leaf, "committed", True):
            sharding = None
        if sharding is None or isinstance(leaf, np.ndarray | np.generic):
            return np.broadcast_to(np.zeros((), data.dtype), data.shape)
        return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=sharding)

    return jax.tree.map(target, like)


def _placed(like: Any, loaded: Any) -> Any:
    """Give a loaded leaf the type and the placement of its counterpart."""
    if _is_number(like) or isinstance(like, np.ndarray):
        return loaded
    if isinstance(like, np.generic):
        return like.dtype.type(loaded)
    if jax.process_count() > 1 and _is_local(like):
        loaded = np.asarray(loaded.addressable_data(0))
        if getattr(like, "committed", False):
            loaded = jax.device_put(loaded, like.sharding)
    if not _is_key(like):
        return jnp.asarray(loaded)
    words = jnp.asarray(loaded)
    return jax.random.wrap_key_data(words, impl=_implementation(like))


def _implementation(key: Any) -> Any:
    found = []
    jax.eval_shape(lambda k: found.append(jax.random.key_impl(k)), key)
    return found[0]
