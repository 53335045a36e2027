"""The step is pure, and fit gives the same numbers however it is scheduled."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shared import journal, parallel, training
from shared.data import batching
from shared.errors import UsageError

ROWS, WIDTH = 24, 5


class Rows(NamedTuple):
    x: jax.Array
    y: jax.Array


@pytest.fixture(scope="module")
def rows() -> Rows:
    x = jax.random.normal(jax.random.key(1), (ROWS, WIDTH))
    return Rows(x, jnp.sin(x.sum(axis=1)))


def loss_fn(params, state, batch, key, hyper):
    """A linear model with noise on its inputs and a count as its state."""
    x = batch.x + hyper["noise"] * jax.random.normal(key, batch.x.shape)
    loss = jnp.mean((x @ params["w"] - batch.y) ** 2)
    return loss, ({"seen": state["seen"] + 1}, {"error": jnp.sqrt(loss)})


def sgd(hyper):
    return optax.sgd(hyper["rate"], momentum=0.9)


def program(step=None) -> training.Program:
    step = step or training.make_train_step(training.from_loss(loss_fn), sgd)

    def init(key, hyper):
        params = {"w": jax.random.normal(training.init_key(key), (WIDTH,))}
        return training.init_state(params, {"seen": jnp.int32(0)}, key, hyper, sgd)

    def evaluate(train_state, batch):
        error = batch.x @ train_state.params["w"] - batch.y
        return {"mse": jnp.mean(error**2)}

    return training.Program(init, step, evaluate)


def start(seed=0, rate=0.05, noise=0.1):
    hyper = {"rate": jnp.float32(rate), "noise": jnp.float32(noise)}
    return program().init(jax.random.key(seed), hyper)


def run(rows, state, **options):
    options = {"steps": 20, "progress": False, **options}
    batches = options.pop("batches", batching.epochs(ROWS, 4))
    return training.fit(program(), state, rows, batches, **options)


def test_loss_and_update_rule_build_the_same_step(rows):
    def update_fn(params, state, batch, key, hyper):
        grads, (state, metrics) = jax.grad(loss_fn, has_aux=True)(
            params, state, batch, key, hyper
        )
        return grads, (state, metrics)

    from_rule = training.make_train_step(update_fn, sgd)
    from_loss = training.make_train_step(training.from_loss(loss_fn), sgd)
    chex.assert_trees_all_equal(
        from_rule(start(), rows)[0].params, from_loss(start(), rows)[0].params
    )


def test_accumulation_averages_gradients_over_micro_batches(rows):
    whole = training.make_train_step(training.from_loss(loss_fn), sgd)
    parts = training.make_train_step(training.from_loss(loss_fn), sgd, accumulate=4)
    quiet = start(noise=0.0)
    one, metrics = whole(quiet, rows)
    many, part_metrics = parts(quiet, rows)
    chex.assert_trees_all_close(one.params, many.params, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], part_metrics["loss"], rtol=1e-6)
    assert int(many.state["seen"]) == 4 and int(many.step) == 1


def test_accumulation_refuses_a_batch_that_does_not_divide(rows):
    step = training.make_train_step(training.from_loss(loss_fn), sgd, accumulate=5)
    with pytest.raises(UsageError, match="accumulate: got 5.*divisor of .* 24"):
        step(start(), rows)


def test_clipping_limits_the_global_norm_and_keeps_the_direction(rows):
    free = training.make_train_step(training.from_loss(loss_fn), sgd)
    clipped = training.make_train_step(training.from_loss(loss_fn), sgd, clip_norm=0.01)
    base = start()._replace(params={"w": jnp.zeros(WIDTH)})
    moved = free(base, rows)[0].params["w"] - base.params["w"]
    state, metrics = clipped(base, rows)
    limited = state.params["w"] - base.params["w"]
    np.testing.assert_allclose(jnp.linalg.norm(limited), 0.05 * 0.01, rtol=1e-3)
    np.testing.assert_allclose(
        limited / jnp.linalg.norm(limited), moved / jnp.linalg.norm(moved), rtol=1e-4
    )
    np.testing.assert_allclose(
        metrics["gradient_norm"], jnp.linalg.norm(moved) / 0.05, rtol=1e-4
    )


def test_noise_depends_on_key_and_step_alone(rows):
    step = training.make_train_step(training.from_loss(loss_fn), sgd)
    first, _ = step(start(), rows)
    again, _ = step(start(), rows)
    chex.assert_trees_all_equal(first.params, again.params)
    later = start()._replace(step=jnp.int32(1))
    assert not np.allclose(step(later, rows)[0].params["w"], first.params["w"])


@pytest.mark.parametrize("shuffle", [True, False])
def test_scan_and_step_schedules_agree(rows, shuffle):
    batches = batching.epochs(ROWS, 4, shuffle=shuffle)
    scan = run(rows, start(), schedule="scan", batches=batches, log_every=5)
    step = run(rows, start(), schedule="step", batches=batches, log_every=5)
    chex.assert_trees_all_close(
        scan.train_state.params, step.train_state.params, rtol=1e-5
    )
    assert [r["step"] for r in scan.history[0]] == [5, 10, 15, 20]
    for a, b in zip(scan.history[0], step.history[0], strict=True):
        np.testing.assert_allclose(a["batch/loss"], b["batch/loss"], rtol=1e-5)


def test_double_precision_trains_to_the_same_numbers_more_precisely(rows):
    state = start(noise=0.0)
    batches = batching.epochs(ROWS, 4, shuffle=False)
    single = run(rows, state, batches=batches)
    with jax.enable_x64(True):
        double = jax.tree.map(
            lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x,
            (rows, state),
        )
        fitted = run(*double, evaluate={"t": double[0]}, batches=batches)
        found = fitted.train_state.params["w"]
        assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, single.train_state.params["w"], rtol=1e-4)


def test_wake_ups_do_not_change_the_numbers(rows):
    rare = run(rows, start(), log_every=20)
    often = run(rows, start(), log_every=3, eval_every=7, evaluate={"test": rows})
    chex.assert_trees_all_close(
        rare.train_state.params, often.train_state.params, rtol=1e-6
    )
    mean = np.mean(
        [r["batch/loss"] for r in run(rows, start(), log_every=1).history[0]]
    )
    np.testing.assert_allclose(rare.history[0][0]["batch/loss"], mean, rtol=1e-5)


def test_records_hold_evaluations_before_within_and_after(rows):
    fitted = run(rows, start(), log_every=4, eval_every=10, evaluate={"test": rows})
    evaluated = [r["step"] for r in fitted.history[0] if "test/mse" in r]
    assert evaluated == [0, 10, 20]
    last = program().evaluate(fitted.train_state, rows)["mse"]
    np.testing.assert_allclose(fitted.history[0][-1]["test/mse"], last, rtol=1e-6)


def test_evaluation_in_parts_is_the_mean_over_all_rows(rows, monkeypatch):
    from shared import chunk

    whole = chunk.make_assess(
        program().evaluate, {"t": rows}, members=False, how="auto", mesh=None
    )
    parts = chunk.make_assess(
        program().evaluate, {"t": rows}, members=False, how="auto", mesh=None, size=7
    )
    state = start()
    np.testing.assert_allclose(
        whole(state)[0]["t/mse"], parts(state)[0]["t/mse"], rtol=1e-6
    )


@pytest.mark.parametrize("how", ["vmap", "map", "loop"])
@pytest.mark.parametrize("schedule", ["scan", "step"])
def test_members_equal_single_runs(rows, how, schedule):
    states = [start(seed, rate) for seed, rate in [(0, 0.05), (1, 0.01), (2, 0.1)]]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    many = run(
        rows, stacked, members=True, how=how, schedule=schedule, evaluate={"t": rows}
    )
    for member, state in enumerate(states):
        single = run(rows, state, evaluate={"t": rows})
        np.testing.assert_allclose(
            many.train_state.params["w"][member],
            single.train_state.params["w"],
            rtol=1e-4,
        )
        for a, b in zip(many.history[member], single.history[0], strict=True):
            assert a.keys() == b.keys() and a["step"] == b["step"]
            np.testing.assert_allclose(a["t/mse"], b["t/mse"], rtol=1e-4)


def test_single_run_that_diverges_stops_with_step_and_metric(rows):
    with pytest.raises(
        FloatingPointError, match=r"(error|loss) became non-finite at st"
    ):
        run(rows, start(rate=1e30), log_every=20)


@pytest.mark.parametrize("how", ["vmap", "map", "loop"])
def test_failing_member_keeps_its_last_finite_state_and_others_go_on(rows, how):
    states = [start(0, 0.05), start(0, 3e3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    fitted = run(rows, stacked, members=True, how=how, log_every=2, steps=40)
    assert fitted.failed[0] is None
    step, metric = fitted.failed[1]
    assert 0 < step < 40 and metric in ("loss", "error")
    assert np.all(np.isfinite(fitted.train_state.params["w"]))
    alone = run(rows, states[0], steps=40)
    np.testing.assert_allclose(
        fitted.train_state.params["w"][0], alone.train_state.params["w"], rtol=1e-4
    )
    assert len(fitted.history[1]) < len(fitted.history[0]) == 20


def test_a_failed_member_stays_failed_after_resuming(rows, tmp_path):
    states = [start(0, 0.05), start(0, 3e3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)

    def train(folder, steps):
        saving = {"checkpoints": tmp_path / folder, "checkpoint_every": 10}
        return run(rows, stacked, members=True, log_every=2, steps=steps, **saving)

    whole = train("whole", 40)
    train("parts", 30)
    resumed, again = train("parts", 40), train("parts", 40)
    assert whole.failed[0] is None and whole.failed[1] is not None
    assert resumed.failed == again.failed == whole.failed
    # A record after the failure would belong to a state that nobody trained.
    assert resumed.history[1] == [] and len(resumed.history[0]) == 5
    chex.assert_trees_all_equal(
        resumed.train_state.params, whole.train_state.params, again.train_state.params
    )


def test_resuming_from_before_a_failure_forgets_it(rows, tmp_path):
    stacked = jax.tree.map(lambda *x: jnp.stack(x), start(0), start(1))
    saving = {"checkpoints": tmp_path, "checkpoint_every": 10}
    run(rows, stacked, members=True, steps=20, **saving)
    (tmp_path / journal.FAILED).write_text('[null, [25, "loss"]]')
    fitted = run(rows, stacked, members=True, steps=40, **saving)
    assert fitted.failed == [None, None]


def test_the_last_good_checkpoint_is_named(rows, tmp_path):
    message = f"last good checkpoint: step 4 in {tmp_path}"
    saving = {"checkpoints": tmp_path, "checkpoint_every": 4, "log_every": 2}
    with pytest.raises(FloatingPointError, match=message):
        run(rows, start(rate=3e3), steps=40, **saving)


def test_training_begins_again_aloud_when_no_checkpoint_is_whole(rows, tmp_path):
    saving = {"checkpoints": tmp_path, "checkpoint_every": 10}
    whole = run(rows, start(), **saving)
    for manifest in tmp_path.glob("*/manifest.json"):
        manifest.write_text("")
    with pytest.warns(UserWarning) as told:
        again = run(rows, start(), **saving)
    assert "training begins again" in str(told[-1].message)
    chex.assert_trees_all_equal(again.train_state.params, whole.train_state.params)


def test_devices_go_on_from_the_mean_of_their_states(rows):
    def update_fn(params, state, batch, key, hyper):
        grads, (_, metrics) = training.from_loss(loss_fn)(
            params, state, batch, key, hyper
        )
        seen = {"mean": jnp.mean(batch.y), "seen": state["seen"] + 1}
        return grads, (seen, metrics)

    step = training.make_train_step(update_fn, sgd, axis_name="data")
    state = start()._replace(state={"mean": jnp.float32(0), "seen": jnp.int32(0)})
    found, _ = parallel.data_parallel(step, parallel.mesh(2))(state, rows)
    for shard in found.state["mean"].addressable_shards:
        np.testing.assert_allclose(shard.data, jnp.mean(rows.y), rtol=1e-5)
    assert int(found.state["seen"]) == 1


def test_non_finite_data_is_refused_before_any_step(rows):
    bad = rows._replace(x=rows.x.at[3, 1].set(jnp.nan))
    with pytest.raises(UsageError, match=r"training data .*x.*1 non-finite"):
        run(bad, start())


@pytest.mark.parametrize("size", [0, ROWS + 1])
def test_batch_size_outside_the_training_set_is_refused(size):
    with pytest.raises(UsageError, match=f"batch_size: got {size}.*1 to {ROWS}"):
        batching.epochs(ROWS, size)


def test_nothing_is_compiled_twice_for_chunks_of_other_lengths(rows):
    traces = []

    def counted(state, batch):
        traces.append(1)
        return training.make_train_step(training.from_loss(loss_fn), sgd)(state, batch)

    training.fit(
        program(counted),
        start(),
        rows,
        batching.epochs(ROWS, 4),
        steps=20,
        log_every=3,
        schedule="scan",
        progress=False,
    )
    # Once for the metrics' shapes, once for the choice of schedule, once compiled.
    assert len(traces) <= 3


def test_rule_and_optimiser_are_told_the_number_of_the_update(rows):
    def update_fn(params, state, batch, key, hyper):
        return {"w": jnp.full(WIDTH, hyper["step"] + 1.0)}, (state, {})

    def plain(hyper):
        return optax.sgd(10.0 ** -hyper["step"])

    step = training.make_train_step(update_fn, plain, timed=True)
    state = training.init_state(
        {"w": jnp.zeros(WIDTH)}, (), jax.random.key(0), {}, lambda _: optax.sgd(1.0)
    )
    for _ in range(2):
        state, _ = step(state, rows)
    np.testing.assert_allclose(state.params["w"], -1.0 - 0.2, rtol=1e-6)


@pytest.mark.parametrize("members", (False, True))
def test_training_ends_when_all_members_are_done_and_resumes_there(
    rows, tmp_path, members
):
    starts = [start(0), start(1)]
    state = jax.tree.map(lambda *x: jnp.stack(x), *starts) if members else starts[0]
    seen, watched = [], []
    options = {
        "members": members,
        "log_every": 5,
        "eval_every": 5,
        "checkpoint_every": 100,
        "evaluate": {"train": rows},
        "checkpoints": tmp_path,
        "until": lambda state: state.step >= 10,
        "log": lambda step, member, record: seen.append(step),
        "watch": lambda step, state: watched.append((step, int(jnp.max(state.step)))),
    }
    fitted = run(rows, state, **options)
    assert np.all(fitted.train_state.step == 10)
    assert max(seen) == 10 and watched == [(5, 5), (10, 10)]
    again = run(rows, state, **options)
    assert max(seen) == 10 and len(watched) == 2
    assert jnp.array_equal(
        again.train_state.params["w"], fitted.train_state.params["w"]
    )


def test_each_run_draws_from_rows_of_its_own():
    batches = batching.from_subsets(64)
    arrays = jnp.arange(10)

    def drawn(table, count, key=0):
        hyper = {"rows": jnp.asarray(table), "row_count": jnp.int32(count)}
        plan = batches.plan(None, 0, hyper)
        return np.asarray(batches.take(arrays, plan, 0, jax.random.key(key)))

    assert set(drawn([3, 7, 0, 0], 2)) == {3, 7}
    assert set(drawn([1, 1, 1, 5], 4)) == {1, 5}
    assert np.mean(drawn([1, 1, 1, 5], 4) == 1) > 0.6
    assert not np.array_equal(drawn([0, 1, 2], 3), drawn([0, 1, 2], 3, key=1))


def test_epochs_visit_each_row_once_in_a_new_order():
    batches = batching.epochs(12, 4)
    arrays = jnp.arange(12)
    key = jax.random.key(5)

    def visit(epoch):
        plan = batches.plan(key, epoch, {})
        return [batches.take(arrays, plan, i, key) for i in range(3)]

    first, second = np.concatenate(visit(0)), np.concatenate(visit(1))
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(first) != list(second)


def test_file_order_drops_the_rest_of_the_last_batch():
    batches = batching.epochs(11, 4, shuffle=False)
    taken = [
        batches.take(jnp.arange(11), (), i, None) for i in range(batches.per_epoch)
    ]
    np.testing.assert_array_equal(np.concatenate(taken), np.arange(8))


def test_draws_with_replacement_are_uniform_and_depend_on_the_key():
    batches = batching.with_replacement(5, 5, per_epoch=10)
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = jax.vmap(lambda k: batches.take(jnp.arange(5), (), 0, k))(keys)
    counts = np.bincount(np.asarray(drawn).ravel(), minlength=5)
    assert np.all(np.abs(counts / counts.sum() - 0.2) < 0.02)
    assert len(np.unique(drawn, axis=0)) > 1000


def test_augmentation_sees_each_batch_with_its_own_key():
    augment = lambda key, batch: batch + jax.random.uniform(key, batch.shape)
    batches = batching.epochs(8, 4, shuffle=False, augment=augment)
    one = batches.take(jnp.zeros(8), (), 0, jax.random.key(0))
    two = batches.take(jnp.zeros(8), (), 0, jax.random.key(1))
    assert one.shape == (4,) and not np.allclose(one, two)
