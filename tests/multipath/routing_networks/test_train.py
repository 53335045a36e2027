"""Whole runs: members, records, killed and resumed, evaluated."""

import dataclasses

import jax
import numpy as np
import pytest

from multipath.routing_networks import train
from multipath.routing_networks.config import Config
from multipath.routing_networks.tasks import prepare
from shared import runs
from shared.config import split
from shared.errors import UsageError
from tests import tiny_runs
from tests.quick import quick

TINY = Config(
    dataset="digits_mtl",
    tasks=3,
    per_task=40,
    modules=2,
    depth=1,
    width=4,
    algorithm="actor_critic",
    batch=8,
    updates=8,
    eval_rows=20,
    checkpoint_every=4,
)
MEMBERS = tuple(dataclasses.replace(TINY, seed=seed) for seed in (1, 2))


def new_run(folder, members=MEMBERS) -> runs.Run:
    return tiny_runs.create(folder, "routing", members)


def go(run, members=MEMBERS, **options):
    return train.train(members, run=run, progress=False, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run and its summaries."""
    with new_run(tmp_path_factory.mktemp("whole")) as run:
        return run.path, go(run)


def test_evaluations_tell_of_tasks_and_routes(whole):
    path, summaries = whole
    for place, summary in zip(runs.members(path), summaries, strict=True):
        last = runs.read_metrics(place)[-1]
        for name in ("train", "valid", "test"):
            assert len(last[f"{name}/task_balanced_accuracy"]) == 3
            use = np.array(last[f"{name}/decision0/use"])
            assert use.shape == (3, 2)
            np.testing.assert_allclose(use.sum(1), 1, rtol=1e-5)
        assert summary["test/accuracy"] == last["test/accuracy"]


def test_updates_tell_of_losses(whole):
    records = [runs.read_metrics(place) for place in runs.members(whole[0])]
    for name in ("module", "routing", "critic"):
        assert any(f"batch/loss/{name}" in r for r in records[0])


def test_a_killed_run_resumes_to_the_same_numbers(tmp_path, whole):
    with new_run(tmp_path) as run, tiny_runs.killed_at(8):
        go(run)
    with runs.open(run.path) as again:
        go(again)
    assert tiny_runs.numbers(run.path) == tiny_runs.numbers(whole[0])


def test_evaluation_repeats_the_last_record(whole):
    records = train.evaluate(whole[0])
    for record, place in zip(records, runs.members(whole[0]), strict=True):
        last = runs.read_metrics(place)[-1]
        for name in ("test/accuracy", "test/decision0/entropy", "valid/loss/module"):
            np.testing.assert_allclose(record[name], last[name], rtol=1e-5)


def test_seeds_differ(whole):
    first, second = (runs.read_metrics(p)[-1] for p in runs.members(whole[0]))
    assert first["test/loss/module"] != second["test/loss/module"]


def test_decisions_remember_the_actions_of_the_updates_before():
    static, hyper = split(TINY)
    task = prepare(static)
    program = train.build(static, task)
    key = jax.random.key(0)
    batch = task.batches.take(task.train, task.batches.plan(key, 0, hyper), 0, key)
    histories = []
    state = quick(program.init)(key, hyper)
    step = quick(program.step)
    for _ in range(3):
        histories.append(state.state["memory"]["decision0"]["history"])
        state, _ = step(state, batch)
    counts = [np.sum(jax.tree.leaves(history)[-1]) for history in histories]
    assert counts == [0, TINY.batch, 2 * TINY.batch]


def test_devices_share_members_and_not_batches(tmp_path):
    with pytest.raises(UsageError, match="--devices"), new_run(tmp_path) as run:
        go(run, MEMBERS[:1], devices=2)


def test_members_on_two_devices_are_those_on_one(tmp_path, whole):
    with new_run(tmp_path) as run:
        go(run, devices=2)
    found = map(tiny_runs.numbers, (run.path, whole[0]))
    for ours, theirs in zip(*found, strict=True):
        for name in ("test/loss/module", "test/decision0/use"):
            np.testing.assert_allclose(ours[-1][name], theirs[-1][name], rtol=1e-4)
