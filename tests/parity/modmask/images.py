"""Reference values of image networks, names, samplers and splits."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from modmask import names
from modmask.config import Config
from modmask.models.convnet import convnet
from modmask.models.feedforward import feedforward
from modmask.models.resnet import resnet
from modmask.models.transformer import transformer
from modmask.tasks import addmul, images, pairs, samplers, scan
from shared import masking
from shared.model import Variables
from tests.parity.modmask import layers
from tests.parity.modmask.convert import from_tree, nhwc, to_tree
from tests.parity.runner import Tolerance

EXACT = Tolerance(0.0)
SIZES = {"convnet": 32, "resnet": 16}
ARCHIVES = {"cifar10": 50_000, "cifar100": 50_000, "mnist": 60_000}


def _same(ours, golden):
    """Compare texts: 1 if they are equal."""
    equal = [str(text) for text in ours] == [str(text) for text in golden]
    return np.float64(equal), np.ones(())


# Networks.


def _task(npz, model, permutations):
    channels = npz["in/image"].shape[1] if "in/image" in npz else 3
    inputs = images.Inputs((0.0,) * channels, (1.0,) * channels)
    if permutations is not None:
        inputs = inputs._replace(permutations=permutations)
    return images.make_task(model, inputs, npz["out/logits"].shape[1])


def _differentiated(task, forward, batch, *trees):
    """Return loss, logits and the gradients of `forward(*trees)`, compiled."""

    def loss(*trees):
        outputs, run = [], forward(*trees)

        def recording(x):
            logits, state = run(x)
            outputs.append((logits, state))
            return logits

        value, _ = task.loss(recording, batch, jax.random.key(0), 0)
        return value, outputs[0]

    places = tuple(range(len(trees)))
    run = jax.value_and_grad(loss, places, has_aux=True)
    (value, out), grads = jax.jit(run, compiler_options=layers.COMPILER)(*trees)
    return value, out, grads


def _run_feedforward(npz, dtype):
    depth = sum(name.startswith("param/") for name in npz) // 2
    sizes = tuple(len(npz[f"param/layers_{i}_bias"]) for i in range(depth - 1))
    pixels = npz["param/layers_0_weight"].shape[1]
    model = feedforward(pixels, npz["out/logits"].shape[1], sizes)
    like = jax.eval_shape(model.init, jax.random.key(0)).params
    params, logits = (
        to_tree(npz, prefix, like, dtype=dtype) for prefix in ("param/", "logit/")
    )
    task = _task(npz, model, np.arange(pixels)[None])
    batch = {
        "image": nhwc(jnp.asarray(npz["in/image"], dtype)),
        "label": jnp.asarray(npz["in/label"]),
    }

    def forward(params, logits):
        masks = layers.draw_masks(npz, logits)
        return lambda x: layers.apply(npz, model, Variables(params), masks, x)

    value, out, grads = _differentiated(task, forward, batch, params, logits)
    ours = {"out/loss": value, "out/logits": out[0]}
    ours |= from_tree(grads[0], "grad_param/") | from_tree(grads[1], "grad_logit/")
    return {name: (ours[name], npz[name]) for name in ours if name in npz}


def formula_arrays(npz):
    """Return parameters and logits that follow from their names and shapes."""
    found = {}
    for k, (name, sizes) in enumerate(zip(npz["names"], npz["shapes"], strict=True)):
        shape = tuple(int(size) for size in str(sizes).split(","))
        i = np.arange(np.prod(shape), dtype=np.float64)
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        value = 1.4 * scale * np.sin(0.7 * k + 1.3 * i + 0.001 * i * i)
        norm = len(shape) == 1 and name.endswith("weight")
        found[f"param/{name}"] = (value + norm).reshape(shape)
        found[f"logit/{name}"] = (1.5 * np.cos(0.3 * k + 0.9 * i) + 0.8).reshape(shape)
    return found


def formula_images(batch, size, seed):
    """Return images `[batch, 3, size, size]` that follow from their places."""
    b, c, y, x = np.meshgrid(*map(np.arange, (batch, 3, size, size)), indexing="ij")
    waves = np.sin(0.3 * x + 0.17 * y * (c + 1) + 1.1 * b + seed)
    return waves + 0.5 * np.cos(0.05 * x * y + b)


def _network(npz):
    """Return a file's network and the size of its images."""
    named = dict(zip(npz["names"], npz["shapes"], strict=True))
    classes = npz["out/logits"].shape[1]
    if "features_10_weight" in named:
        return convnet(3, classes, dropout=False), SIZES["convnet"]
    blocks = {m[1] for name in named if (m := re.match(r"features_3_(\d+)_", name))}
    return resnet(6 * len(blocks) + 2, 3, classes), SIZES["resnet"]


def _run_formula(npz, dtype):
    model, size = _network(npz)
    init = jax.eval_shape(model.init, jax.random.key(0))
    arrays, mode = formula_arrays(npz), str(npz["mode"])
    params = to_tree(arrays, "param/", init.params, dtype=dtype)
    logits = to_tree(arrays, "logit/", init.params, dtype=dtype)
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), init.state)
    state = jax.tree_util.tree_map_with_path(_running, state)
    masks = masking.threshold(logits, inclusive=mode == "masked_eval")
    train, masked = mode.endswith("_train"), not mode.startswith("unmasked")
    pixels = formula_images(int(npz["batch"]), size, int(npz["seed"]))
    batch = {
        "image": nhwc(jnp.asarray(pixels, dtype)),
        "label": jnp.asarray(npz["in/label"]),
    }

    def forward(params):
        own = masking.apply_masks(params, masks) if masked else params
        return lambda x: model.apply(Variables(own, state), x, train=train)

    task = _task(npz, model, None)
    value, (out, after), grads = _differentiated(task, forward, batch, params)
    ours = {
        "out/logits": out,
        "out/loss": value,
        "n_params": sum(leaf.size for leaf in jax.tree.leaves(params)),
        **_per_parameter(masks, grads[0]),
    }
    compared = {name: (ours[name], npz[name]) for name in ours}
    golden_shapes = {**from_tree(params, "")}
    spelt = [",".join(map(str, golden_shapes[n].shape)) for n in sorted(golden_shapes)]
    compared["names"] = _same(sorted(golden_shapes), npz["names"])
    compared["shapes"] = _same(spelt, npz["shapes"])
    for name in npz:
        if found := re.fullmatch(r"out/features\.(\d+)\.running_(mean|var)", name):
            compared[name] = (after[found[1]][found[2]], npz[name])
    return compared


def _running(path, leaf):
    return leaf + 1 if path[-1].key == "var" else leaf


def _per_parameter(masks, grads):
    """Return what the files hold for each parameter, in the order of their names."""
    grads, masks = (dict(sorted(from_tree(t, "").items())) for t in (grads, masks))
    return {
        "mask_density": np.array([np.mean(np.asarray(m)) for m in masks.values()]),
        "grad_norms": np.array([np.linalg.norm(np.ravel(g)) for g in grads.values()]),
        "grad_first4": np.array([np.ravel(g)[:4] for g in grads.values()]),
    }


def _feedforward_tolerance(name, npz, dtype):
    return layers.tolerance(name, npz, dtype) if name != "in/label" else None


def _formula_tolerance(name, npz, dtype):
    if name.startswith("in/") or name in ("seed", "batch", "mode"):
        return None
    if name in ("names", "shapes", "n_params"):
        return EXACT
    if dtype == np.float64:
        return Tolerance(1e-9, 1e-11)
    deep = len(npz["names"]) > 100
    if name.startswith("grad_"):
        return Tolerance(1e-2 if deep else 1e-3, 1e-5)
    return Tolerance(2e-4, 1e-5)


# Names of all architectures.


def _architectures():
    """Return the config and the network of each architecture by its golden name."""
    free = {"mask_biases": False}
    arithmetic = {
        "tuple_rnn": Config(task="tuple", state_size=256, **free),
        "tuple_ff_2000x4": Config(task="tuple_ff", layer_sizes=(2000,) * 4, **free),
        "addmul_rnn": Config(task="addmul", state_size=256, **free),
        "addmul_ff_800x4": Config(task="addmul_ff", layer_sizes=(800,) * 4, **free),
    }
    trafo = {"state_size": 100, **free}
    grammar = {
        "scan_lstm": Config(task="scan", state_size=200, **free),
        "scan_trafo": Config(task="trafo_scan", **trafo),
        "scan_trafo_skip_layernorm": Config(
            task="trafo_scan", skip_layernorm=True, **trafo
        ),
    }
    removal, deep = "cifar10_class_removal", "cifar10_resnet_class_removal"
    math = transformer(
        95,
        95,
        width=512,
        ff_multiplier=4,
        tied=True,
        heads=8,
        encoder_layers=6,
        decoder_layers=6,
        max_out=30,
    )
    module = lambda config: pairs if config.task.startswith("tuple") else addmul
    return {
        **{k: (c, module(c).make_task(c).model) for k, c in arithmetic.items()},
        **{name: (config, scan.network(config)) for name, config in grammar.items()},
        "dm_math_v95": (Config(task="deepmind_math", **free), math),
        "cifar10": (Config(task=removal), convnet(3, 10)),
        "cifar10_resnet110": (Config(task=deep), resnet(110, 3, 10)),
        "permuted_mnist": (
            Config(task="permuted_mnist"),
            feedforward(784, 10, (800, 800, 64)),
        ),
    }


def _run_names(npz, dtype):
    del dtype
    compared = {}
    for key, (config, model) in _architectures().items():
        params = jax.eval_shape(model.init, jax.random.key(0)).params
        where = names.masked(params, config)
        logits = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if where(_path(path), leaf) else None,  # noqa: B023
            params,
        )
        every, masked = names.named(params), names.named(logits)
        halves = names.half_sets(config, list(masked))
        # Files hold no half where the halves are drawn.
        half = halves[0] if len(halves) == 1 else ()
        count = lambda tree: sum(leaf.size for leaf in tree.values())
        ours = {"all": every, "masked": masked, "half_mask_first": half}
        for part, found in ours.items():
            name = f"{key}/{part}"
            compared[name] = _same(_merged(found), npz[name])
        numbers = f"{key}/n_total_n_masked"
        compared[numbers] = (np.array([count(every), count(masked)]), npz[numbers])
    return {name: pair for name, pair in compared.items() if name in npz}


def _path(keys):
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def _merged(found):
    """Return sorted names with those of keys and values made one."""
    joined = {re.sub("_data_to_[kv]_", "_data_to_kv_", name) for name in found}
    return sorted(joined)


# Samplers and splits: the arrays' names tell what they are.

SAMPLERS = (
    (
        r"infinite_seed(\d+)_n(\d+)",
        lambda npz, golden, seed, n: samplers.infinite(n, len(golden), seed=seed),
    ),
    (
        r"infinite_noreplace_seed(\d+)_n(\d+)",
        lambda npz, golden, seed, n: samplers.without_replacement(
            n, len(golden), seed=seed
        ),
    ),
    (r"subset_n(\d+)_max(\d+)", lambda npz, golden, n, most: samplers.subset(n, most)),
    (r"fixed_random_n(\d+)", lambda npz, golden, n: samplers.fixed_order(n)),
    (
        r"mnist_permutation_(\d+)",
        lambda npz, golden, p: samplers.pixel_permutation(p),
    ),
    (
        r"dm_math_test_split_rule_n(\d+)_k(\d+)_seed(\d+)",
        lambda npz, golden, n, k, seed: samplers.held_out(n, k, seed=seed),
    ),
)


def _sampled(npz, name):
    cut = re.fullmatch(r"(.+?)(?:_(first|last)(\d+))?", name)
    kind, side, count = cut[1], cut[2], int(cut[3] or 0)
    archive = re.fullmatch(r"(\w+)_(train|valid)_filter(_count)?", kind)
    if archive:
        chosen = samplers.training_rows(ARCHIVES[archive[1]])
        chosen = chosen if archive[2] == "train" else ~chosen
        found = chosen.sum() if archive[3] else chosen
    else:
        found = next(
            make(npz, npz[name], *map(int, match.groups()))
            for pattern, make in SAMPLERS
            if (match := re.fullmatch(pattern, kind))
        )
    if side:
        return {"first": found[:count], "last": found[-count:]}[side]
    # Long sequences are cut even where their names do not say so.
    return found[: npz[name].size] if npz[name].ndim else found


def _run_samplers(npz, dtype):
    del dtype
    return {name: (_sampled(npz, name), npz[name]) for name in npz}


def _run_pairs(npz, dtype):
    """Compare random pairs of classes; the seed is in the file's name alone."""
    del dtype
    count, wanted = len(npz["choice"]), npz["choice"].tolist()
    numbers = lambda seed: samplers.pair_numbers(seed, count=count).tolist()
    seed = next((s for s in range(1000) if numbers(s) == wanted), 0)
    return {
        "choice": (samplers.pair_numbers(seed, count=count), npz["choice"]),
        "pairs": (samplers.stability_pairs(seed, count=count), npz["pairs"]),
    }


def _exact(name, npz, dtype):
    del name, npz, dtype
    return EXACT


def _starts(*prefixes):
    return lambda keys, meta, stem: stem.startswith(prefixes)


CASES = (
    (_starts("image_ff"), _run_feedforward, _feedforward_tolerance),
    (_starts("convnet", "resnet"), _run_formula, _formula_tolerance),
    (_starts("parameter_names"), _run_names, _exact),
    (_starts("samplers_and_splits"), _run_samplers, _exact),
    (_starts("mask_stability_pairs"), _run_pairs, _exact),
)
