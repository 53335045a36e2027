"""Names of parameters in records, and sets of them."""

import jax
import jax.numpy as jnp
import pytest

from modmask import names
from modmask.config import Config, MaskConfig
from modmask.models.convnet import convnet
from modmask.models.lstm import lstm
from modmask.models.resnet import resnet
from shared import masking
from shared.errors import UsageError

NAMES = {
    "layers/0/kernel": "layers_0_weight",
    "lstm/1/kernel": "lstm_cells_1_weight_ih",
    "encoder/lstm/0/recurrent": "encoder_lstm_cells_0_weight_hh",
    "decoder/lstm/0/bias": "decoder_lstm_cells_0_bias",
    "output_projection/kernel": "output_projection_weight",
    "encoder/embedding/table": "encoder_embedding_weight",
    "trafo/encoder_layers/0/self_attn/query/kernel": (
        "trafo_encoder_layers_0_self_attn_data_to_q_weight"
    ),
    "trafo/decoder_layers/2/multihead_attn/merge/kernel": (
        "trafo_decoder_layers_2_multihead_attn_multi_head_merge_weight"
    ),
    "trafo/encoder_layers/0/norm1/scale": "trafo_encoder_layers_0_norm1_gamma",
    "trafo/decoder_layers/0/norm3/offset": "trafo_decoder_layers_0_norm3_beta",
    "features/3/0/layers/1/scale": "features_3_0_layers_1_weight",
    "features/4/0/downsample/1/offset": "features_4_0_downsample_1_bias",
    "query/kernel": "query_weight",
    "own": "own",
}


@pytest.mark.parametrize(("path", "name"), NAMES.items())
def test_paths_have_the_names_of_the_published_program(path, name):
    assert names.original_name(path) == name


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0)).params


def chosen(params, config):
    """Return the names of the parameters that have masks."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params)
    return list(names.named(masking.init_logits(zeros, names.masked(params, config))))


def test_leaves_come_by_name_in_alphabetical_order_without_absent_ones():
    params = {"layers": [{"kernel": 1, "bias": None}, {"kernel": 3, "bias": 2}]}
    found = names.named(params)
    assert list(found.items()) == [
        ("layers_0_weight", 1),
        ("layers_1_bias", 2),
        ("layers_1_weight", 3),
    ]


def test_two_parameters_of_one_name_are_refused():
    with pytest.raises(UsageError, match="a/b/kernel and a/b_weight"):
        names.named({"a": {"b": {"kernel": 0}, "b_weight": 0}})


def test_biases_have_masks_if_asked_for_and_embeddings_never():
    params = {"embedding": {"table": jnp.zeros(3)}, **shapes(lstm(2, 2, 3, 1))}
    weights = ["lstm_cells_0_weight_hh", "lstm_cells_0_weight_ih"]
    every = ["lstm_cells_0_bias", *weights, "output_projection_bias"]
    last = "output_projection_weight"
    assert chosen(params, MaskConfig()) == [*every, last]
    assert chosen(params, MaskConfig(mask_biases=False)) == [*weights, last]


def test_offsets_of_batch_norms_are_biases():
    found = chosen(shapes(resnet(8, 3, 10, width=2)), MaskConfig(mask_biases=False))
    assert "features_3_0_layers_1_weight" in found
    assert not any(name.endswith("bias") for name in found)


def test_layer_norms_have_masks_unless_skipped():
    norm = {"scale": jnp.zeros(2), "offset": jnp.zeros(2)}
    params = {"encoder_layers": [{"norm1": norm, "linear1": {"kernel": jnp.zeros(2)}}]}
    config = Config(mask_biases=False)
    assert len(chosen(params, config)) == 3
    found = chosen(params, Config(mask_biases=False, skip_layernorm=True))
    assert found == ["encoder_layers_0_linear1_weight"]


def test_half_of_the_layers_in_alphabetical_order():
    layers = [f"layers_{i}_weight" for i in (2, 0, 1, 10, 3)]
    first = ("layers_0_weight", "layers_10_weight")
    assert names.half_sets(Config(task="tuple_ff"), layers) == (
        ("layers_0_weight", "layers_10_weight"),
    )
    whole = names.half_sets(Config(task="addmul_ff"), layers)
    assert whole == ((*first, "layers_1_weight"),)


def test_half_of_a_transformer_is_its_lower_layers_and_the_output():
    layers = [
        f"trafo_{side}_layers_{i}_linear1_weight"
        for side in ("decoder", "encoder")
        for i in range(4)
    ]
    config = Config(task="trafo_scan", encoder_layers=4, decoder_layers=3)
    (half,) = names.half_sets(config, [*layers, "output_map_weight"])
    assert half == ("output_map_weight", *layers[:2], *layers[4:7])


def test_half_of_an_image_network_goes_by_kernels_and_takes_whole_modules():
    (half,) = names.half_sets(
        Config(task="cifar10_class_removal"), list(names.named(shapes(convnet(3, 10))))
    )
    places = ("0", "3", "6")
    assert half == tuple(
        f"features_{place}_{kind}" for place in places for kind in ("bias", "weight")
    )


def test_other_halves_are_drawn_apart_and_always_the_same():
    layers = [f"w{i}" for i in range(7)]
    config = Config(task="scan", seed=3)
    halves = names.half_sets(config, layers)
    assert len(set(halves)) == 5
    assert all(len(set(half)) == 4 and set(half) <= set(layers) for half in halves)
    assert names.half_sets(config, layers[::-1]) == halves
    assert names.half_sets(config, layers, seed=4) != halves


def test_there_are_no_more_halves_than_the_layers_allow():
    halves = names.half_sets(Config(task="scan"), ["a", "b"])
    assert sorted(halves) == [("a",), ("b",)]


def test_input_and_output_layers_of_double_addition():
    layers = [f"layers_{i}_{kind}" for i in (0, 1, 10) for kind in ("bias", "weight")]
    found = names.io_layers(Config(task="tuple_ff"), layers)
    assert found == tuple(name for name in layers if "layers_1_" not in name)
    cells = list(names.named(shapes(lstm(2, 2, 3, 2))))
    assert names.io_layers(Config(task="tuple"), cells) == (
        "lstm_cells_0_weight_ih",
        "output_projection_bias",
        "output_projection_weight",
    )


def test_other_tasks_have_no_input_and_output_layers():
    with pytest.raises(UsageError, match="inverse_io=none"):
        names.io_layers(Config(task="scan"), ["a"])
