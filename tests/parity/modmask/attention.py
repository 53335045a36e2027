"""Reference values of attention and of transformer layers."""

import jax
import jax.numpy as jnp
import numpy as np

from modmask.models.transformer_layers import (
    Mode,
    decode,
    decoder_layer,
    encode,
    encoder_layer,
    init_layer,
)
from modmask.names import original_name
from shared import masking
from shared.layers.attention import attention, init_attention
from shared.model import Model, Variables
from tests.parity.modmask.sequence_files import (
    File,
    choose_heads,
    compiled,
    count_layers,
    pairs,
    starts,
    tolerance,
)


def _run_layer(init, apply, inputs, name=original_name):
    """Make `run` of `init(key, npz, heads)` and `apply(params, x, npz, heads)`.

    What is differentiated is the sum of the outputs times fixed cotangents.
    """

    def run(npz, dtype):
        x = {name: jnp.asarray(npz[f"in/{name}"], dtype) for name in inputs}
        width = npz[f"in/{inputs[0]}"].shape[-1]

        def file_of(heads):
            like = jax.eval_shape(lambda key: init(key, npz, heads), jax.random.key(0))
            return File(npz, like, dtype, heads, name)

        def forward(file, logits, params, x):
            heads = file.how["heads"]
            layer = lambda own, x, **_: (apply(own.params, x, npz, heads), ())
            model = Model(lambda key: Variables(params), layer)
            groups = {**x, **_hidden(npz)}
            masks = file.masks(logits)
            return masking.batched_apply(model, Variables(params), masks, groups)[0]

        def outputs(heads):
            file = file_of(heads)
            return compiled(lambda x: forward(file, file.logits, file.params, x))(x)

        file = file_of(choose_heads(width, outputs, npz["out/y"]))

        def scalar(logits, params, x):
            y = forward(file, logits, params, x)
            return jnp.sum(y * jnp.asarray(npz["cot/y"], dtype)), y

        graded = jax.grad(scalar, argnums=(0, 1, 2), has_aux=True)
        (*grads, towards), y = compiled(graded)(file.logits, file.params, x)
        ours = {"out/y": y, **file.gradients(grads, "")}
        ours |= {f"grad_in/{name}": value for name, value in towards.items()}
        return pairs(ours, npz)

    return run


def _hidden(npz):
    """Return what masks lengths, which has an axis for the batch."""
    return {"inside": ~jnp.asarray(npz["in/src_mask"])} if "in/src_mask" in npz else {}


def _inside(x, name):
    return x.get("inside", jnp.ones(x[name].shape[:2], bool))


def _init_attention(key, npz, heads):
    return init_attention(key, npz["in/q"].shape[-1], heads, bias=False)


def _name_in_attention(path):
    """Return the name of a projection in a file of a single attention layer."""
    return original_name(f"attn/{path}").removeprefix("attn_")


def _attend(params, x, npz, heads):
    mask = None
    if "inside" in x:
        mask = x["inside"][:, None, :]
    elif "in/pos_mask" in npz:
        mask = ~jnp.asarray(npz["in/pos_mask"])
    return attention(params, x["q"], x["kv"], heads=heads, mask=mask)


def _init_layer(cross):
    def init(key, npz, heads):
        ff, width = npz["param/linear1_weight"].shape
        return init_layer(key, width, ff, heads, cross=cross)

    return init


def _init_layers(key, npz, heads):
    ff, width = npz["param/encoder_layers_0_linear1_weight"].shape
    return {
        f"{side}_layers": [
            init_layer(key, width, ff, heads, cross=side == "decoder")
            for _ in range(count_layers(npz, side + "_layers_{}_norm1_beta"))
        ]
        for side in ("encoder", "decoder")
    }


def _check_causal(npz):
    np.testing.assert_array_equal(~npz["in/tgt_mask"], np.tri(len(npz["in/tgt_mask"])))


def _encode(params, x, npz, heads):
    del npz
    return encoder_layer(params, x["src"], _inside(x, "src"), Mode(heads))


def _decode(params, x, npz, heads):
    _check_causal(npz)
    how = Mode(heads)
    return decoder_layer(params, x["tgt"], x["memory"], _inside(x, "memory"), how)


def _both(params, x, npz, heads):
    _check_causal(npz)
    how = Mode(heads)
    memory = encode(params["encoder_layers"], x["src"], _inside(x, "src"), how)
    return decode(params["decoder_layers"], x["tgt"], memory, _inside(x, "src"), how)


CASES = (
    (
        starts("mha_"),
        _run_layer(_init_attention, _attend, ("q", "kv"), _name_in_attention),
        tolerance,
    ),
    (
        starts("trafo_encoder_layer"),
        _run_layer(_init_layer(False), _encode, ("src",)),
        tolerance,
    ),
    (
        starts("trafo_decoder_layer"),
        _run_layer(_init_layer(True), _decode, ("tgt", "memory")),
        tolerance,
    ),
    (starts("trafo_full"), _run_layer(_init_layers, _both, ("src", "tgt")), tolerance),
)
