"""A search with its baselines: what is reported, and what it reaches."""

import dataclasses
import json

import numpy as np
import pytest

import enasq
from enasq import candidates, cell, experiments, parts, sessions, study, train
from shared import runs
from shared.errors import UsageError
from tests.enasq.tiny import SEARCH, go, new_run

TINY = dataclasses.replace(
    SEARCH,
    task="study",
    budget_of="none",
    budget=0.0,
    epochs=1,
    random_cells=1,
    study_seeds=1,
    study_epochs=1,
)


REPORT = {
    "entries": [
        {
            "name": "searched",
            "policy": "deployable",
            "test_accuracy": [0.97, 0.99],
            "valid_accuracy": [0.9, 0.8],
            "shared_accuracy": 0.7,
            "bits": 1000,
            "bit_operations": 20,
            "file": "searched.enasq",
            "file_bytes": 100,
            "file_accuracy": 0.97,
            "same_labels": 1.0,
        },
        {
            "name": "float",
            "policy": "float",
            "test_accuracy": [0.99],
            "valid_accuracy": [0.9],
            "shared_accuracy": None,
            "bits": 32_000,
            "bit_operations": 640,
            "file": "float.enasq",
            "file_bytes": 900,
            "file_accuracy": 0.99,
            "same_labels": 1.0,
        },
        *(
            {
                "name": f"random-{i}",
                "policy": "deployable",
                "test_accuracy": [accuracy],
                "valid_accuracy": [accuracy],
                "shared_accuracy": accuracy - 0.3,
                "bits": 1010,
                "bit_operations": 21,
                "file_bytes": None,
            }
            for i, accuracy in enumerate((0.5, 0.8, 0.6))
        ),
    ],
}


def test_what_a_report_says():
    tau = study._agreement(REPORT["entries"])
    # 0.7 against 0.85 first, then in the same order.
    assert tau["count"] == 4 and tau["tau"] == pytest.approx(1)
    report = REPORT | {"kendall_tau": tau}
    found = study.headline(report)
    assert found["searched/accuracy"] == pytest.approx(0.98)
    assert found["random/median_accuracy"] == 0.6
    assert found["file_ratio"] == 9
    text = study.render(report)
    assert (
        "| searched | deployable | 98.00 % | 1.00 | 70.00 % | 1.0 | 20 | 100 |" in text
    )
    assert "searched.enasq: 100 bytes, 97.00 % of the test images right" in text
    assert "Kendall's tau" in text


def test_the_float_network_has_the_same_operations_without_their_quantisers():
    static = dataclasses.replace(
        TINY, choices=("binary", "ternary", "2-bit"), random_cells=0
    )
    own = sessions.searching(static, parts.load(static, None))
    chosen = candidates.Candidate(2, 1.0, "0 5 1 13 0 2 1 6", 0.5, {"bits": 1})
    searched, floats = study._entries(static, {}, own, chosen)
    assert cell.render(searched.arc) == chosen.architecture
    assert cell.render(floats.arc) == "0 0 1 3 0 2 1 1"
    described = sessions.training_of(
        static, parts.load(static, None), floats.arc, name=floats.policy
    )
    assert not described.net.policy.choices


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of a study and its summary."""
    with new_run(tmp_path_factory.mktemp("study"), TINY) as run:
        return run.path, go(run, TINY)[0]


@pytest.mark.slow
def test_the_report_compares_with_floats_and_with_random_cells_of_equal_cost(whole):
    path, summary = whole
    report = json.loads((path / "report.json").read_text())
    by_name = {entry["name"]: entry for entry in report["entries"]}
    assert list(by_name) == ["searched", "float", "random-0"]
    searched, floats, random = by_name.values()
    assert floats["architecture"] == searched["architecture"] != random["architecture"]
    assert abs(random["bits"] / searched["bits"] - 1) <= study.TOLERANCE
    assert floats["shared_accuracy"] is None and random["shared_accuracy"] > 0
    assert report["kendall_tau"]["count"] == 2
    assert summary["searched/accuracy"] == np.mean(searched["test_accuracy"])
    text = (path / "report.md").read_text()
    assert "| random-0 | deployable |" in text and "Kendall's tau" in text


@pytest.mark.slow
def test_files_give_the_labels_of_the_networks(whole):
    path, _ = whole
    report = json.loads((path / "report.json").read_text())
    sets = parts.load(TINY, None)
    for entry in report["entries"][:2]:
        assert entry["same_labels"] == 1
        file = path / entry["file"]
        assert entry["file_bytes"] == file.stat().st_size
        found = enasq.run_packed(file, np.asarray(sets.test.images)).labels
        right = np.mean(found == np.asarray(sets.test.labels))
        assert entry["file_accuracy"] == pytest.approx(right)


@pytest.mark.slow
def test_a_resumed_study_does_not_train_again_what_is_done(whole, monkeypatch):
    path, summary = whole
    (path / "report.json").unlink()
    monkeypatch.setattr(study, "_train", None)
    with runs.open(path) as again:
        assert go(again, TINY)[0]["searched/accuracy"] == summary["searched/accuracy"]
    assert (path / "report.json").exists()


def test_a_study_needs_a_place_for_its_files():
    with pytest.raises(UsageError, match="run: got None"):
        train.train((TINY,), progress=False)


@pytest.mark.slow
def test_a_binary_cell_that_was_searched_reaches_its_full_precision_twin(tmp_path):
    """94 % and more, at most 3 points below floats, a seventh of their bytes."""
    (full,) = experiments.EXPERIMENTS["digits-search"].configs
    with new_run(tmp_path, full) as run:
        go(run, full)
    report = json.loads((run.path / "report.json").read_text())
    by_name = {entry["name"]: entry for entry in report["entries"]}
    mean = {name: np.mean(own["test_accuracy"]) for name, own in by_name.items()}
    assert len(by_name["searched"]["test_accuracy"]) == 3
    assert mean["searched"] >= 0.94
    assert mean["searched"] >= mean["float"] - 0.03
    randoms = [value for name, value in mean.items() if name.startswith("random")]
    assert len(randoms) == 8 and mean["searched"] >= np.median(randoms)
    assert by_name["searched"]["same_labels"] == 1
    sizes = [by_name[name]["file_bytes"] for name in ("searched", "float")]
    assert 7 * sizes[0] <= sizes[1]
