"""Reference values of figures on masks: overlaps, sharing, transfer, confusions."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from modmask import norms, pictures, repetitions, statistics
from modmask.analyses import transfer
from modmask.tasks import addmul, arithmetic, images, pairs, sequences
from shared import masking
from tests.parity.modmask import convert
from tests.parity.runner import Tolerance

EXACT = Tolerance(0.0, 0.0)


def _tolerance(golden, dtype) -> Tolerance:
    """Return what an array allows by its kind and the precision it was made in."""
    if golden.dtype.kind in "biuU":
        return EXACT
    if golden.dtype == np.float32 or dtype == np.float32:
        return Tolerance(2e-4, 1e-5)
    return Tolerance(1e-9, 1e-11)


def _with_inputs(*prefixes, names=()):
    """Return tolerances of files whose inputs begin like these, or have these names."""

    def tolerances(name, npz, dtype):
        if name.startswith(prefixes) or name in names:
            return None
        return _tolerance(npz[name], dtype)

    return tolerances


def _has(prefix, keys):
    return any(key.startswith(prefix) for key in keys)


def _compared(ours, npz):
    return {name: (value, npz[name]) for name, value in ours.items()}


def _names(npz, prefix):
    return [name[len(prefix) :] for name in npz if name.startswith(prefix)]


def _tree(npz, prefix, names, dtype=None):
    """Return a tree of the parameters with these names, `layers_0_weight` and so on.

    The tree is that of a feed-forward network; arrays are in our layout.
    """
    depth = 1 + max(int(name.split("_")[1]) for name in names)
    tree = {"layers": [{} for _ in range(depth)]}
    for name in names:
        _, index, part = name.split("_")
        array = npz[prefix + name]
        leaf = {"weight": "kernel", "bias": "bias"}[part]
        kind = None if array.dtype == bool else dtype
        tree["layers"][int(index)][leaf] = jnp.asarray(
            convert.ours(array, array.ndim), kind
        )
    return tree


def _flat(tree, prefix):
    return convert.from_tree(tree, prefix)


def _tabled(figures, npz, kind):
    """Return figures in the order of a file's keys."""
    return np.array([figures[str(key)] for key in npz[f"{kind}/keys"]])


# Counts, overlaps and shares of several masks of one network.


def _run_statistics(npz, dtype):
    names = [str(name) for name in npz["param_names"]]
    sets = sorted({int(key.split("/")[1]) for key in npz if key.startswith("logit/")})
    logits = [_tree(npz, f"logit/{s}/", names, dtype) for s in sets]
    masks = [masking.threshold(tree) for tree in logits]
    first, second = masks[:2]
    ours = {}
    for s in sets:
        ours |= _flat(masks[s], f"binary/{s}/")
        ours |= _flat(jax.tree.map(jax.nn.sigmoid, logits[s]), f"prob/{s}/")
        shown = masking.threshold(logits[s], inclusive=True)
        ours |= _flat(jax.tree.map(lambda m: m.astype(dtype), shown), f"eval_mask/{s}/")
    ours |= _flat(masking.union(first, second), "or01/")
    ours |= _flat(masking.intersection(first, second), "and01/")
    ours |= _flat(masking.invert(first), "invert0/")
    ours |= _penalties(npz, names, logits[1], dtype)
    overlaps = statistics.iou(first, second), statistics.iomin(first, second)
    for kind, found in zip(("iou", "iomin"), overlaps, strict=True):
        ours[f"{kind}01_per_param"] = np.array([found[name] for name in names])
    for key in npz:
        if found := re.fullmatch(r"iou(\d+)_total", key):
            chosen = [masks[int(digit)] for digit in found[1]]
            ours[key] = np.array(statistics.total_iou(chosen))
    ours["remaining/values"] = _tabled(statistics.remaining(masks), npz, "remaining")
    ours["sharing/values"] = _tabled(_published_sharing(masks), npz, "sharing")
    used = statistics.used_before(masks[:-1])
    ours |= _flat(used, "transfer/used_before_last/")
    moved = statistics.transfer_sharing(masks[-1], used)
    ours["transfer/values"] = _tabled(moved, npz, "transfer")
    return _compared(ours, npz)


def _penalties(npz, names, logits, dtype):
    """Return the penalty of weight 0.3 and its gradients, plain and scaled."""
    record = norms.start(logits)
    order = list(convert.from_tree(logits, ""))
    raw = dict(zip(names, npz["reg/scales"], strict=True))
    record = record.at[:, -1].set(jnp.array([raw[name] for name in order], dtype))
    scales = norms.scales(record)
    used = dict(zip(order, np.asarray(scales), strict=True))
    structure = jax.tree.structure(logits)
    trees = {"plain": None, "scaled": structure.unflatten(list(scales))}
    ours = {"reg/scales_used": np.array([used[name] for name in names])}
    for kind, tree in trees.items():
        penalty = lambda l, tree=tree: 0.3 * masking.linear_penalty(l, tree)
        value, gradient = jax.value_and_grad(penalty)(logits)
        ours |= {f"reg/{kind}": value, **_flat(gradient, f"reg/{kind}_grad/")}
    return ours


def _published_sharing(masks):
    """Rename the totals: the published program counts shared weights as `n_i`."""
    figures = statistics.sharing(masks[1:])
    total = figures["mask_stat/all/n_total"]
    for i in range(1, len(masks)):
        shared = figures[f"mask_stat/all/n_shared_{i}"]
        figures[f"mask_stat/all/n_{i}"] = shared
        figures[f"mask_stat/all/shared_{i}"] = shared / total
    return figures


# What transfer does to weights and logits before a task.


def _run_reinit(npz, dtype):
    names = _names(npz, "in/param/")
    params = _tree(npz, "in/param/", names, dtype)
    sets = sorted({key.split("/")[2] for key in npz if key.startswith("in/logit/")})
    earlier = [
        masking.threshold(_tree(npz, f"in/logit/{s}/", names, dtype)) for s in sets
    ]
    fresh = jax.tree.map(
        lambda leaf: leaf + 7 if leaf.ndim > 1 else jnp.zeros_like(leaf), params
    )
    start = transfer.reinit(
        params,
        fresh,
        earlier,
        new_init=float(npz["mask_new_init"]),
        used_init=float(npz["mask_used_init"]),
        reset_first_layer=bool(npz["reset_first_layer"]),
    )
    kept = convert.from_tree(start.kept, "")
    ours = {f"out/kept/{name}": mask for name, mask in kept.items()}
    ours |= _flat(start.logits, "out/logit_init/")
    gradient = _tree(npz, "in/grad/", names, dtype)
    ours |= _flat(transfer.freeze(gradient, start.kept), "out/grad/")
    compared = {name: (ours[name], npz[name]) for name in npz if name in ours}
    for name, value in _flat(start.params, "out/param/").items():
        # Weights that are not kept are drawn anew, from other streams than theirs.
        keep = np.asarray(kept[name.removeprefix("out/param/")])
        fixed = keep | (value.ndim == 1)
        old = npz[name.replace("out/", "in/")]
        changed = np.where(keep, 0.0, np.asarray(value != old))
        golden = np.where(fixed, npz[name], 0.0)
        compared[name] = (
            np.stack([np.where(fixed, value, 0.0), changed]),
            np.stack([golden, np.where(keep, 0.0, npz[name] != old)]),
        )
    return compared


# Gradients under masks.


def _run_cosine(npz, dtype):
    names = _names(npz, "g1/")
    gradients = [
        {name: jnp.asarray(npz[f"g{i}/{name}"], dtype) for name in names}
        for i in (1, 2)
    ]
    masks = {name: npz.get(f"mask/{name}") for name in names}
    found = statistics.cosines(*gradients, masks)
    return {"values": (_tabled_cosines(found, npz), npz["values"])}


def _tabled_cosines(found, npz):
    return np.array([found[str(key)] for key in npz["keys"]])


# Scores and confusions, means over repetitions, and pictures.


def _run_metrics(npz, dtype):
    ours = {
        **_image_confusions(npz),
        **_operations(npz),
        **_pairs(npz),
        **_sequence_scores(npz),
        **_pictures(npz),
        "stat/mean_std": np.array(repetitions.aggregate(npz["stat/values"].tolist())),
    }
    record, means = norms.start(jnp.zeros(1, dtype)), []
    for value in npz["gradnorm/values"]:
        record = norms.push(record, jnp.array([value], dtype))
        means.append(norms.means(record)[0])
    ours["gradnorm/running_average"] = np.array(means)
    return _compared(ours, npz)


def _image_confusions(npz):
    labels = jnp.asarray(npz["img/label"])
    classes = len(npz["img/confusion_ref_pred_by_true"])
    found, shares = {}, {}
    for kind in ("ref", "new"):
        predicted = jnp.asarray(npz[f"img/pred_{kind}"])
        found[kind] = images.confusion(predicted, labels, classes)
        shares[kind] = statistics.normalise_confusion(np.asarray(found[kind]))
    change = shares["new"] - shares["ref"]
    target = int(npz["img/target_class"])
    lost = statistics.drops(shares["ref"], change, target)
    return {
        "img/confusion_ref_pred_by_true": np.rint(found["ref"] * len(labels)),
        "img/accuracy_ref": jnp.trace(found["ref"]),
        "img/normalised_ref_true_by_pred": shares["ref"],
        "img/confusion_difference": change,
        "img/relative_drop_target_percent": np.array(lost["target"]),
        "img/largest_other_over_target_percent": np.array(lost["ratio"]),
    }


def _operations(npz):
    operation = jnp.asarray(npz["op/op"])
    matches = jnp.asarray(npz["op/pred"][:, None] == npz["op/all_res"])
    counts = addmul.confusion(matches, operation) * len(operation)
    right = matches[np.arange(len(operation)), operation]
    return {
        "op/confusion_pred_by_true": counts,
        "op/accuracy": np.asarray(right).mean(),
        "op/display_true_by_pred": statistics.normalise_confusion(np.asarray(counts)),
    }


def _pairs(npz):
    logits = jax.nn.one_hot(npz["tuple/pred"], 10)
    right = arithmetic.all_right(logits, jnp.asarray(npz["tuple/output"]))
    found = pairs.accuracies(right)
    names = ("accuracy/total", "accuracy/tuple/0", "accuracy/tuple/1")
    # Shares of rows in single precision, from which their numbers follow.
    shares = np.array([float(found[name]) for name in names])
    return {"tuple/accuracy_all_0_1": np.rint(shares * len(right)) / len(right)}


def _sequence_scores(npz):
    ours = {}
    for kind in ("seq_longer", "seq_shorter"):
        parts = ("pred", "pred_len", "ref", "ref_len")
        arrays = [jnp.asarray(npz[f"{kind}/{part}"].T) for part in parts]
        right = sequences.exact_match(*arrays)
        ours[f"{kind}/n_ok"] = jnp.sum(right)
        ours[f"{kind}/n_total"] = np.array(right.size)
    return ours


def _pictures(npz):
    masks, presence = npz["draw/masks"], npz["draw/presence"]
    kernels = masks.transpose(0, 2, 1)
    filters = convert.ours(npz["draw/conv_masks"], 4)
    return {
        "draw/image_3_channels": pictures.mask_image(kernels, presence.T),
        "draw/image_1_mask": pictures.mask_image(kernels[:1]),
        "draw/image_2_masks_1d": pictures.mask_image(masks[:2, 0]),
        "draw/image_conv": pictures.mask_image(filters),
    }


CASES = (
    (
        lambda keys, meta, stem: "sharing/keys" in keys and "param_names" in keys,
        _run_statistics,
        _with_inputs(
            "logit/",
            "param_names",
            "remaining/keys",
            "sharing/keys",
            "transfer/keys",
            names=("reg/scales",),
        ),
    ),
    (
        lambda keys, meta, stem: "mask_new_init" in keys,
        _run_reinit,
        _with_inputs("in/", "mask_new_init", "mask_used_init", "reset_first_layer"),
    ),
    (
        lambda keys, meta, stem: {"keys", "values"} <= keys and _has("g1/", keys),
        _run_cosine,
        _with_inputs("g1/", "g2/", "mask/", "keys"),
    ),
    (
        lambda keys, meta, stem: "op/all_res" in keys and "stat/values" in keys,
        _run_metrics,
        _with_inputs(
            *("img/label", "img/pred_", "img/target_class"),
            *("op/all_res", "op/pred", "tuple/output", "tuple/pred"),
            *("seq_longer/pred", "seq_longer/ref", "seq_shorter/pred"),
            *("seq_shorter/ref", "stat/values", "gradnorm/values", "draw/masks"),
            *("draw/presence", "draw/conv_masks"),
            names=("op/op",),
        ),
    ),
)
