"""Descriptions hold each statistic where it belongs, and are written as published."""

import json

import pytest

from multipath.trees import descriptions, graph
from multipath.trees.net import Net
from shared.errors import UsageError

BLOCKS = graph.Blocks(classes=2, arch=((2, 2), (2,)), router_n_chan=4)
IMAGE = (8, 8, 3)
CHAIN = Net("actor", graph.dr_chain(BLOCKS), IMAGE, 2)
TREE = Net("critic", graph.dr_tree(BLOCKS, splits=1), IMAGE, 2)


def stats(leaves, switches=1, **more):
    """Return statistics that tell the leaves apart."""
    numbers = [0.25 * (i + 1) for i in range(leaves)]
    return {
        "accuracy": 0.5,
        "moc": 12345.6,
        "p_cor": numbers,
        "p_inc_by_cls": [[x, 0.0] for x in numbers],
        "c_err": [1.5] * leaves,
        "x_rte": [0.125] * switches,
        **more,
    }


def test_statistics_stand_at_their_nodes():
    found = descriptions.describe(CHAIN, stats(2), stats(2, accuracy=0.75))
    assert found["type"] == "ActorNet"
    assert found["stats_tr"] == {"acc": 0.5, "moc": 12345.6}
    assert found["stats_ts"] == {"acc": 0.75, "moc": 12345.6}
    root = found["root"]
    assert (root["name"], root["stats_tr"], root["stats_ts"]) == ("ToPyramid", {}, {})
    (first,) = root["sinks"]
    assert (first["name"], first["stats_ts"]) == ("ReConvMax", {"x_rte": 0.125})
    classifier, second = first["sinks"]
    (last,) = second["sinks"]
    assert second["stats_tr"] == {} and last["name"] == "LogReg"
    assert [n["stats_tr"]["p_cor"] for n in (classifier, last)] == [0.25, 0.5]
    assert last["stats_tr"]["p_inc_by_cls"] == [0.5, 0.0] and last["sinks"] == []
    assert json.loads(json.dumps(found)) == found


def test_sets_without_statistics_are_empty():
    found = descriptions.describe(CHAIN, test_stats=stats(2))
    assert found["stats_tr"] == {} and found["stats_ts"] != {}
    assert found["root"]["sinks"][0]["stats_tr"] == {}
    text = descriptions.render(descriptions.describe(CHAIN), "untrained")
    assert "│   [ActorNet] \n│     ToPyramid \n│     ↳ ReConvMax \n" in text


def test_text_of_a_tree_marks_siblings_that_follow():
    found = descriptions.describe(TREE, stats(3))
    lines = descriptions.render(found, "net — iteration 7").split("\n")
    assert lines[:5] == [
        "┌" + "─" * 59,
        "│ net — iteration 7",
        "├" + "─" * 59,
        "│ Training Set:",
        "│",
    ]
    assert lines[5:14] == [
        "│   [CriticNet] (acc=0.5; moc=1.23e+04)",
        "│     ToPyramid ",
        "│     ↳ ReConvMax (x_rte=0.125)",
        "│       ↳ LogReg (c_err=1.5; p_cor=0.25)",
        "│       ↳ ReConvMax ",
        "│       | ↳ LogReg (c_err=1.5; p_cor=0.5)",
        "│       ↳ ReConvMax ",
        "│         ↳ LogReg (c_err=1.5; p_cor=0.75)",
        "│",
    ]
    assert lines[14:17] == ["│ Test Set:", "│", "│   [CriticNet] "] and lines[-1] == "│"


def test_records_of_training_are_read_by_set_and_price():
    record = {"step": 3, "train/loss": 9.0}
    for price in range(2):
        for part in ("train", "test"):
            accuracy = 0.1 * price + (0.5 if part == "test" else 0.25)
            for name, value in stats(2, accuracy=accuracy).items():
                record[f"{part}/k{price}/{name}"] = value
    found = descriptions.from_metrics(CHAIN, record, 1)
    assert found["stats_tr"]["acc"] == pytest.approx(0.35)
    assert found == descriptions.describe(
        CHAIN, stats(2, accuracy=0.35), stats(2, accuracy=0.6)
    )
    plain = {f"test/{name}": value for name, value in stats(2).items()}
    assert descriptions.from_metrics(CHAIN, plain)["stats_ts"]["acc"] == 0.5
    for price, given in ((2, record), (None, {"step": 0, "train/loss": 9.0})):
        with pytest.raises(UsageError, match="trained and evaluated"):
            descriptions.from_metrics(CHAIN, given, price)
