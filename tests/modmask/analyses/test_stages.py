"""The general analysis: what masks, their inverses and their halves do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask import names, phases
from modmask.analyses import outcome, stages
from modmask.evaluate import assess
from modmask.tasks import addmul, pairs
from shared import masking
from shared.errors import UsageError
from shared.groups import Place
from tests.modmask.analyses import small

SIZES = {"digits": 1, "layer_sizes": (12, 12), "mask_biases": False}


def masks_for(problem, config, seed=0):
    """Return a network and logits that keep everything."""
    network = problem.task.model.init(jax.random.key(seed))
    where = names.masked(network.params, config)
    return network, masking.init_logits(network.params, where, 1.0)


@pytest.fixture(scope="module")
def addition():
    config = small.config("addmul_ff", **SIZES)
    return addmul.load(config, items=60), config


@pytest.fixture(scope="module")
def examined(addition):
    """What is said of a control that keeps all, and of masks that keep nothing."""
    problem, config = addition
    network, keep = masks_for(problem, config)
    logits = {"verify": keep, "add": small.like(keep, -1.0)}
    return stages.examine(problem, config, network, logits, 7), network


def test_a_mask_that_keeps_all_is_the_network(addition, examined):
    problem, _ = addition
    (results, _, steps), network = examined
    assert steps == 7
    for name, arrays in problem.valid.items():
        whole = assess(problem.task, network, None, arrays)
        for metric in ("accuracy", "loss"):
            value = float(whole[metric])
            same = (
                f"analysis_results/verify/{name}/{metric}",
                f"faithfulness/verify/masked/{name}/{metric}",
                f"faithfulness/verify/random/{name}/{metric}",
                f"inverse_mask_test/add/{name}/{metric}",
            )
            for key in same:
                assert results[key] == pytest.approx(value, rel=1e-6), key
    halves = [key for key in results if key.startswith("half_mask_test/")]
    assert sorted(halves) == [
        f"half_mask_test/{kind}/verify/iter_0/iid/accuracy"
        for kind in ("inverse", "normal")
    ]
    assert results["density/verify/total"] == 1
    assert results["mask_remaining/masks/remaining_0"] == 0
    assert results["chance/mask_iou/verify/add/total"] == 0


def test_a_mask_that_keeps_nothing_leaves_the_biases_alone(addition, examined):
    problem, _ = addition
    (results, _, _), network = examined
    bare = {
        "layers": [
            {**layer, "kernel": jnp.zeros_like(layer["kernel"])}
            for layer in network.params["layers"]
        ]
    }
    found = assess(
        problem.task, network._replace(params=bare), None, problem.valid["iid"]
    )
    for key in (
        "analysis_results/add/iid/loss",
        "faithfulness/verify/inverse/iid/loss",
        "inverse_mask_test/verify/iid/loss",
    ):
        assert results[key] == pytest.approx(float(found["loss"]), rel=1e-6)


def test_exports_hold_counts_and_logits(addition, examined):
    problem, _ = addition
    (_, exports, _), _ = examined
    table = exports["confusion/verify"]
    assert table.shape == (3, 2)
    assert table.dtype == np.int64
    operation = np.asarray(problem.valid["iid"]["operation"])
    # Where both operations give one result, an item counts in both rows.
    assert (table.sum(axis=0) >= np.bincount(operation, minlength=2)).all()
    assert {"inverse_mask_test/add/confusion", "confusion/add"} <= set(exports)
    final = exports["stage_final_masks/stage_1"]
    assert str(final["stage"]) == "add"
    assert final["layers_0_weight"].shape == (22, 12)
    assert (final["layers_0_weight"] == -1).all()


def test_halves_mask_their_layers_alone():
    config = small.config("addmul_ff", **SIZES)
    problem = addmul.load(config, items=60)
    network, keep = masks_for(problem, config)
    mask = outcome.masks_of(small.like(keep, -1.0), network.params)
    found = stages.half_masks(problem, config, network, mask, "verify")
    first = outcome.only(mask, ["layers_0_weight", "layers_1_weight"])
    expected = assess(problem.task, network, first, problem.valid["iid"])
    key = "half_mask_test/normal/verify/iter_0/iid/accuracy"
    assert found[key] == pytest.approx(float(expected["accuracy"]))
    assert sorted(names.named(first)) == ["layers_0_weight", "layers_1_weight"]


@pytest.mark.parametrize("io", ("none", "fullmask", "ones"))
def test_inverse_leaves_input_and_output_layers_as_asked(io):
    config = small.config("tuple_ff", inverse_io=io, **SIZES)
    problem = pairs.load(config, items=20)
    network, keep = masks_for(problem, config)
    random = outcome.masks_of(small.logits(1, network), network.params)
    random = masking.intersection(random, outcome.masks_of(keep, network.params))
    control = outcome.masks_of(keep, network.params)
    found = stages.inverted(config, random, control)["layers"]
    ends = {"none": masking.invert(random), "fullmask": control, "ones": None}[io]
    for place in (0, 2):
        wanted = None if ends is None else ends["layers"][place]["kernel"]
        kernel = found[place]["kernel"]
        assert (kernel is None) == (wanted is None)
        if wanted is not None:
            assert bool(jnp.all(kernel == wanted))
    middle = masking.invert(random)["layers"][1]["kernel"]
    assert bool(jnp.all(found[1]["kernel"] == middle))


def test_variants_are_refused_where_there_are_none():
    config = small.config("addmul_ff", inverse_io="ones", **SIZES)
    network, _ = masks_for(addmul.load(config, items=20), config)
    with pytest.raises(UsageError, match="double addition"):
        stages.prepared([config], [network])


def test_copied_weights_come_before_the_masks():
    config = small.config("tuple_ff_copyweight", **SIZES)
    network, _ = masks_for(pairs.load(config, items=20), config)
    (copied,) = stages.prepared([config], [network])
    kernel = copied.params["layers"][0]["kernel"]
    half = kernel.shape[0] // 2
    assert bool(jnp.all(kernel[:half] == kernel[half:]))


def test_faithfulness_table_of_any_network():
    problem, network = small.problem(), small.network()
    mask = outcome.masks_of(small.logits(0, network), network.params)
    table = outcome.faithfulness(
        problem.task, network, {"a": mask}, {"iid": small.arrays()}, jax.random.key(0)
    )
    twice = outcome.faithfulness(
        problem.task,
        network,
        {"a": masking.invert(mask)},
        {"iid": small.arrays()},
        jax.random.key(0),
    )
    kinds = {key.split("/")[2] for key in table}
    assert kinds == {"masked", "inverse", "random"}
    assert table["faithfulness/a/masked/iid/loss"] == pytest.approx(
        twice["faithfulness/a/inverse/iid/loss"]
    )
    losses = [table[f"faithfulness/a/{kind}/iid/loss"] for kind in kinds]
    assert len(set(losses)) == 3


def test_whole_analysis_of_two_networks(addition):
    problem, config = addition
    configs = [config, small.with_seed(config, 1)]
    networks = [masks_for(problem, config, seed)[0] for seed in (0, 1)]
    place = Place(progress=False)
    first, second = stages.run(problem, configs, networks, place, 10)
    assert first.steps == 10 + config.mask_steps
    assert set(first.results) == set(second.results)
    for kind in ("mask_stat/all/shared_2", "chance/mask_stat/all/shared_2"):
        assert kind in first.results
    one = first.exports["stage_final_masks/stage_2"]
    two = second.exports["stage_final_masks/stage_2"]
    assert str(one["stage"]) == "mul"
    assert not np.allclose(one["layers_1_weight"], two["layers_1_weight"])


def test_control_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(phases, "train_stages", small.untrained(calls))
    config = small.config("deepmind_math", only_control=True)
    networks, place = [small.network()], Place()
    (found,) = stages.run(small.problem(), [config], networks, place, 0)
    assert calls == [("masks", 0, ["baseline"])]
    assert "density/baseline/total" in found.results
    others = ("mask_iou/", "mask_stat/", "mask_remaining/masks/", "half_mask_test/")
    assert not any(key.startswith(others) for key in found.results)
