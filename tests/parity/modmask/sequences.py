"""Reference values of sequence models and of the encodings of their data."""

import jax
import jax.numpy as jnp
import numpy as np

from modmask.models.encoder_decoder import encoder_decoder
from modmask.models.symbols import append_end, likeliest, prepend_start
from modmask.models.transformer import transformer
from modmask.tasks.mathematics import encode, minimal_vocabulary
from modmask.tasks.sequences import cross_entropy, exact_match
from shared import masking
from shared.data import scan
from shared.layers.embedding import sinusoidal_positions
from shared.model import Variables
from tests.parity.modmask import attention
from tests.parity.modmask.sequence_files import (
    File,
    choose_heads,
    compiled,
    count_layers,
    pairs,
    starts,
    tolerance,
)
from tests.parity.runner import Tolerance

# Whole models.


def _batch(npz):
    """Return ids, batch first, and their lengths."""
    ids = lambda name: jnp.asarray(npz[f"in/{name}"].T, jnp.int32)
    lengths = lambda name: jnp.asarray(npz[f"in/{name}"], jnp.int32)
    return {
        "source": ids("in"),
        "source_length": lengths("in_len"),
        "target": ids("out"),
        "target_length": lengths("out_len"),
    }


def _loss(logits, x):
    return cross_entropy(logits, x["target"], x["target_length"]).mean()


def _time_major(array):
    return jnp.moveaxis(array, 0, 1)


def _counted(outputs, npz):
    """Set the steps behind the end to 0: the loss ignores what is there."""
    steps = np.arange(len(outputs))[:, None] <= npz["in/out_len"][None, :]
    return np.where(steps[..., None], outputs, 0)


def _evaluation(model, file, x, prefix):
    """Return the outputs of greedy decoding with thresholded masks."""

    def decode(x):
        params = masking.apply_masks(file.params, masking.threshold(file.logits))
        given = {name: x[name] for name in ("source", "source_length")}
        outputs, _ = model.apply(Variables(params), given)
        predicted, reference = likeliest(outputs["logits"]), x["target"]
        lengths = outputs["length"], x["target_length"]
        right = exact_match(predicted, lengths[0], reference, lengths[1])
        return {
            f"{prefix}/outputs": _time_major(outputs["logits"]),
            f"{prefix}/out_lengths": outputs["length"],
            f"{prefix}/loss": _loss(outputs["logits"], x),
            f"{prefix}/n_ok": jnp.sum(right),
        }

    return compiled(decode)(x)


def _trained(file, outputs_of, x):
    """Return the loss, its gradients and the outputs of one training pass."""

    def loss(logits, params, x):
        outputs = outputs_of(logits, params, x)
        return _loss(outputs["logits"], x), outputs

    graded = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (value, outputs), grads = compiled(graded)(file.logits, file.params, x)
    return value, outputs, grads


def _grouped(model, file):
    def outputs_of(logits, params, x):
        masks = file.masks(logits)
        return masking.batched_apply(model, Variables(params), masks, x)[0]

    return outputs_of


def _lstm(npz, skip):
    v_in, embedding = npz["param/encoder_embedding_weight"].shape
    v_out, hidden = npz["param/decoder_output_projection_weight"].shape
    return encoder_decoder(
        v_in - 1,
        v_out - 1,
        hidden=hidden,
        layers=count_layers(npz, "encoder_lstm_cells_{}_bias"),
        embedding=embedding,
        dropout=0.5,
        max_out=len(npz["in/out"]),
        encoder_skip_eos=skip,
    )


def _run_lstm(npz, dtype):
    x = _batch(npz)
    everyone = jnp.ones(len(x["source"]), bool)
    like = jax.eval_shape(_lstm(npz, False).init, jax.random.key(0)).params
    file = File(npz, like, dtype)
    ours = {}
    for version, skip in (("clean", False), ("upstream", True)):
        model = _lstm(npz, skip)
        forced = _flat(model, file) if skip else _grouped(model, file)
        modes = {"teacher": (forced, everyone)}
        modes["free"] = (_grouped(model, file), ~everyone)
        for mode, (outputs_of, teacher) in modes.items():
            found = _trained(file, outputs_of, {**x, "teacher": teacher})
            loss, outputs, grads = found
            prefix = f"{version}_{mode}/"
            ours |= file.gradients(grads, prefix)
            ours[f"{prefix}outputs"] = _time_major(outputs["logits"])
            ours[f"{prefix}out_lengths"] = outputs["length"]
            ours[f"{prefix}loss"] = loss
        ours |= _evaluation(model, file, x, f"{version}_eval")
    start = npz["param/decoder_embedding_weight"].shape[0] - 1
    end = npz["param/encoder_embedding_weight"].shape[0] - 1
    ended = append_end(x["target"], x["target_length"], start)
    ours["out/in_with_eos"] = append_end(x["source"], x["source_length"], end).T
    ours["out/ref_with_sos"] = prepend_start(x["target"], start).T
    ours["out/ref_with_eos"] = ended.T
    compared = pairs(ours, npz)
    for version in ("clean", "upstream"):
        name = f"{version}_teacher/outputs"
        compared[name] = tuple(_counted(array, npz) for array in compared[name])
    return compared


def _flat(model, file):
    """Cut the groups of the output layer along time and batch together.

    So does the published program under teacher forcing.
    """

    def outputs_of(logits, params, x):
        masks = file.masks(logits)
        projection = params["decoder"]["output_projection"]
        mask = masks["decoder"]["output_projection"]["kernel"]
        kernels = projection["kernel"][None] * mask
        # A layer that changes nothing shows what the last one is given.
        size = kernels.shape[1]
        same = {"kernel": jnp.eye(size, dtype=kernels.dtype)}
        same["bias"] = jnp.zeros(size, kernels.dtype)
        bare = {**params, "decoder": {**params["decoder"], "output_projection": same}}
        unmasked = {"kernel": None, "bias": None}
        others = {**masks["decoder"], "output_projection": unmasked}
        masks = {**masks, "decoder": others}
        outputs, _ = masking.batched_apply(model, Variables(bare), masks, x)
        hidden = _time_major(outputs["logits"])
        rows = hidden.reshape(len(kernels), -1, size)
        bias = _flat_bias(file, logits, projection["bias"])
        flat = rows @ kernels + bias
        y = flat.reshape(*hidden.shape[:2], -1)
        return {"logits": _time_major(y), "length": outputs["length"]}

    return outputs_of


def _flat_bias(file, logits, bias):
    mask = file.masks(logits)["decoder"]["output_projection"]["bias"]
    return bias[None, None] if mask is None else (bias[None] * mask)[:, None]


def _transformer(npz, heads):
    v_in, width = npz["param/input_embedding_weight"].shape
    tied = "param/output_map_weight" not in npz
    table = "input_embedding" if tied else "output_embedding"
    ff = len(npz["param/trafo_encoder_layers_0_linear1_weight"])
    count = lambda side: count_layers(npz, f"trafo_{side}_layers_{{}}_norm1_beta")
    return transformer(
        v_in - 1,
        len(npz[f"param/{table}_weight"]) - 1,
        width=width,
        ff_multiplier=ff / width,
        tied=tied,
        heads=heads,
        encoder_layers=count("encoder"),
        decoder_layers=count("decoder"),
        max_out=len(npz["in/out"]),
    )


def _run_transformer(npz, dtype):
    x = _batch(npz)
    width = npz["param/input_embedding_weight"].shape[1]

    def file_of(heads):
        init = _transformer(npz, heads).init
        like = jax.eval_shape(init, jax.random.key(0)).params
        return File(npz, like, dtype, heads)

    def teacher(heads):
        file, model = file_of(heads), _transformer(npz, heads)
        outputs_of = _grouped(model, file)
        outputs = compiled(lambda x: outputs_of(file.logits, file.params, x))(x)
        return _time_major(outputs["logits"])

    file = file_of(choose_heads(width, teacher, npz["teacher/outputs"]))
    model = _transformer(npz, file.how["heads"])
    loss, outputs, grads = _trained(file, _grouped(model, file), x)
    positions = len(npz["out/positional_encoding"])
    ours = {
        "teacher/outputs": _time_major(outputs["logits"]),
        "teacher/loss": loss,
        **file.gradients(grads, ""),
        **_evaluation(model, file, x, "eval"),
        "out/positional_encoding": sinusoidal_positions(positions, width, dtype=dtype),
    }
    return pairs(ours, npz)


# Encodings.


def _run_scan(npz, dtype):
    del dtype
    sizes = {}
    for name in scan.SPLITS:
        split = scan.split(name)
        sizes[f"size/{name}"] = [len(split.train), len(split.test)]
    commands = [str(command) for command in npz["commands"]]
    actions = [" ".join(scan.interpret(command)) for command in commands]
    columns = zip(npz["batch/in"].T, npz["batch/in_len"].astype(int), strict=True)
    read = [" ".join(npz["in_vocab"][ids[:length]]) for ids, length in columns]
    batch = scan.encode(read)
    width, longest = npz["batch/in"].shape[0], npz["batch/out"].shape[0]
    everything = scan.table()
    ours = {
        **sizes,
        "max_in_len": everything.source.shape[1],
        "max_out_len": everything.target.shape[1],
        "batch/in": batch.source[:, :width].T,
        "batch/out": batch.target[:, :longest].T,
        "batch/in_len": batch.source_length,
        "batch/out_len": batch.target_length,
    }
    texts = {"in_vocab": scan.WORDS, "out_vocab": scan.ACTIONS, "actions": actions}
    return {**pairs(ours, npz), **_texts(texts, npz)}


def _texts(ours, npz):
    """Compare texts: 1 where they are equal."""
    same = lambda name, value: np.array_equal(np.asarray(value), npz[name])
    return {name: (same(name, value), np.array(True)) for name, value in ours.items()}


def _run_mathematics(npz, dtype):
    del dtype
    questions, answers = ([str(t) for t in npz[n]] for n in ("questions", "answers"))
    smallest = minimal_vocabulary([*questions, *answers])
    ours = {}
    for name, given in (("ascii95", ()), ("min", (smallest,))):
        for side, texts in (("in", questions), ("out", answers)):
            ids, lengths = encode(texts, *given)
            ours |= {f"{name}/{side}": ids.T, f"{name}/{side}_len": lengths}
    return {**pairs(ours, npz), **_texts({"vocab_min": list(smallest)}, npz)}


def _exact(name, npz, dtype):
    del npz, dtype
    return None if name in ("commands", "questions", "answers") else Tolerance(0.0)


CASES = (
    *attention.CASES,
    (starts("seq2seq_lstm"), _run_lstm, tolerance),
    (starts("transformer_encdec"), _run_transformer, tolerance),
    (starts("scan_"), _run_scan, _exact),
    (starts("dm_math_encoding"), _run_mathematics, _exact),
)
