"""Whole runs: weights, masks, analysis; killed and resumed; restored; evaluated."""

import dataclasses
import json

import numpy as np
import pytest

from modmask import phases, results, train
from modmask.experiments import Config
from modmask.tasks import addmul
from scripts import evaluate
from shared import runs
from shared.errors import UsageError
from tests import tiny_runs

TINY = Config(
    task="addmul_ff",
    digits=1,
    layer_sizes=(8,),
    steps=30,
    mask_steps=40,
    mask_lr=0.03,
    batch_size=16,
    eval_every=20,
    checkpoint_every=10,
    mask_biases=False,
)
MEMBERS = (TINY, dataclasses.replace(TINY, seed=1))


@pytest.fixture(autouse=True, scope="module")
def few_items():
    """Draw fewer items: the number of rows is not what is tested here."""
    original = addmul.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(addmul, "load", lambda c, d: original(c, d, items=500))
        yield


def new_run(folder, members=MEMBERS) -> runs.Run:
    return tiny_runs.create(folder, "modmask", members)


def go(run, members=MEMBERS):
    return train.train(members, run=run, progress=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run and its summaries."""
    with new_run(tmp_path_factory.mktemp("whole")) as run:
        return run.path, go(run)


def test_a_killed_run_resumes_to_the_same_numbers(tmp_path, whole):
    """Killed in the weights, in the middle of the masks, after the last step."""
    with new_run(tmp_path) as run, tiny_runs.killed_at(20):
        go(run)
    for step in (50, 70):
        with runs.open(run.path) as again, tiny_runs.killed_at(step):
            go(again)
    with runs.open(run.path) as again:
        go(again)
    assert tiny_runs.numbers(run.path) == tiny_runs.numbers(whole[0])
    for ours, theirs in zip(
        runs.members(run.path), runs.members(whole[0]), strict=True
    ):
        assert results.read(ours) == results.read(theirs)
        for stage, arrays in train.stored_masks(theirs).items():
            for name, logits in arrays.items():
                np.testing.assert_array_equal(
                    train.stored_masks(ours)[stage][name], logits
                )


def test_resuming_a_run_that_lacks_only_its_summary_keeps_every_record(whole):
    before = tiny_runs.numbers(whole[0])
    with runs.open(whole[0]) as run:
        go(run)
    assert tiny_runs.numbers(whole[0]) == before


def test_records_carry_the_keys_of_the_published_program(whole):
    place = runs.members(whole[0])[0]
    records = runs.read_metrics(place)
    names = {name for record in records for name in record}
    assert {
        "lr",
        "train/loss",
        "validation/iid/accuracy",
        "validation/train/accuracy",
        "validation/mean_accuracy",
        "timing/ms_per_iter",
        "analyzer/verify/train/loss",
        "analyzer/add/validation/iid/accuracy",
        "analyzer/mul/mask_lr",
        "analyzer/mul/density",
    } <= names
    assert [r["step"] for r in records] == sorted(r["step"] for r in records)
    assert records[-1]["step"] == 70


def test_results_and_exports_agree(whole):
    place = runs.members(whole[0])[1]
    found, stages = results.read(place), train.stored_masks(place)
    assert list(stages) == ["verify", "add", "mul"]
    for stage, arrays in stages.items():
        for name, logits in arrays.items():
            assert found[f"count/{stage}/{name}"] == np.sum(logits > 0)
    confusion = np.load(place / "export" / "confusion" / "add.npy")
    assert confusion.shape == (3, 2)
    right = (confusion[0, 0] + confusion[1, 1]) / 500
    assert right == pytest.approx(found["analysis_results/add/iid/accuracy"])


def test_evaluate_repeats_the_results_of_the_run(whole):
    records = train.evaluate(whole[0])
    for place, record in zip(runs.members(whole[0]), records, strict=True):
        found = results.read(place)
        for name in ("network", "verify", "add", "mul"):
            key = f"analysis_results/{name}/iid/accuracy"
            assert record[f"{name}/iid/accuracy"] == pytest.approx(found[key])


def test_export_names_the_place_where_arrays_are_already(tmp_path, whole):
    with pytest.raises(UsageError, match="--export: .* under export/"):
        evaluate.main([str(whole[0]), "--export", str(tmp_path)])


def test_members_that_differ_in_masks_alone_share_their_network():
    other = dataclasses.replace(TINY, mask_loss_weight=1.0)
    assert phases.shared_weights([*MEMBERS, other]) == [0, 1, 0]


def test_restored_weights_are_those_of_the_run(tmp_path, whole):
    path = str(whole[0])
    config = dataclasses.replace(TINY, restore=path, analysis=False)
    with new_run(tmp_path, (config, dataclasses.replace(config, seed=5))) as run:
        go(run, (config, dataclasses.replace(config, seed=5)))
    key = "analysis_results/network/iid/loss"
    for ours, theirs in zip(
        runs.members(run.path), runs.members(whole[0]), strict=True
    ):
        assert results.read(ours)[key] == results.read(theirs)[key]


def test_weights_of_another_architecture_are_refused(whole):
    config = dataclasses.replace(TINY, restore=str(whole[0]), layer_sizes=(9,))
    with pytest.raises(UsageError, match="restore: got .* another architecture"):
        train.train([config, dataclasses.replace(config, seed=1)], progress=False)


def test_headline_is_short():
    found = {
        "analysis_results/add/iid/accuracy": 0.5,
        "analysis_results/add/iid/loss": 2.0,
        "density/add/total": 0.25,
        "density/add/layers_0_weight": 0.5,
    }
    assert train.headline(found) == {"add/accuracy": 0.5, "add/density": 0.25}


def test_results_are_replaced_whole(tmp_path):
    results.write(tmp_path, {"a/b": np.float32(1)})
    results.write(tmp_path, {"c": 2})
    assert results.read(tmp_path) == {"c": 2.0}
    assert json.loads((tmp_path / results.FILE).read_text()) == {"c": 2.0}
    results.export(tmp_path, {"x/y": np.arange(3), "z": {"w": np.ones(2)}})
    np.testing.assert_array_equal(np.load(tmp_path / "export/x/y.npy"), [0, 1, 2])
    assert np.load(tmp_path / "export/z.npz")["w"].sum() == 2
