"""The SCAN problem: which rows serve which mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask.config import Config
from modmask.tasks import scan as tasks
from shared.data import scan
from shared.errors import UsageError

TINY = {"state_size": 4, "layers": 1, "embedding_size": 2, "heads": 2}


def config(task="scan", **changes):
    layers = {"encoder_layers": 1, "decoder_layers": 1}
    return Config(task=task, **{**TINY, **layers, **changes})


@pytest.fixture(scope="module")
def problem():
    return tasks.load(config())


def test_stages_are_the_control_and_the_splits(problem):
    names = [stage.name for stage in problem.stages]
    assert names == ["simple", "jump", "length", "turn_left"]
    assert problem.weights is problem.stages[0]
    for stage in problem.stages:
        np.testing.assert_array_equal(stage.rows, scan.split(stage.name).train)
    jump = problem.train["source"][problem.stages[1].rows]
    word = scan.WORDS.index("jump")
    lengths = problem.train["source_length"][problem.stages[1].rows]
    inside = np.arange(jump.shape[1]) < lengths[:, None]
    assert ((jump == word) & inside).any(1).sum() == 1_467


def test_validation_sets(problem):
    assert list(problem.valid) == ["iid", "jump", "length", "turn_left"]
    sizes = [len(rows["source"]) for rows in problem.valid.values()]
    assert sizes == [4_182, 7_706, 3_920, 1_208]
    assert problem.valid["length"]["target_length"].min() == 24


def test_trained_on_a_split_itself():
    problem = tasks.load(
        config(scan_train_split="length", scan_analyze_splits=("jump",))
    )
    assert problem.weights.name == "length"
    assert list(problem.valid) == ["iid", "length", "jump"]


@pytest.mark.parametrize("task", ("scan", "trafo_scan"))
def test_networks_take_the_data(problem, task):
    model = tasks.network(config(task))
    batch = {name: jnp.asarray(rows[:4]) for name, rows in problem.train.items()}

    def evaluate(key):
        variables = model.init(key)
        forward = lambda x: model.apply(variables, x)[0]
        whole = tasks.sequences.task(model).evaluate(forward, batch)
        return whole, forward(batch)

    shapes = jax.eval_shape(evaluate, jax.random.key(0))
    assert shapes[0]["accuracy"].shape == ()
    assert shapes[1]["logits"].shape == (4, 49, 7)


def test_missing_files_are_one_error(tmp_path):
    with pytest.raises(UsageError, match="tasks_train_simple.txt"):
        tasks.load(config(), tmp_path)
