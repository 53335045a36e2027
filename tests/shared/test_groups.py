"""Groups: equal static parts train together, write where they did, read back."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shared import groups, runs, training
from shared.config import to_dict, traced
from shared.data import batching
from shared.errors import UsageError
from shared.model import Variables


@dataclasses.dataclass(frozen=True)
class Config:
    width: int = 2
    rate: float = traced(0.1)
    seed: int = traced(1)


MEMBERS = (
    Config(),
    Config(width=3),
    Config(rate=0.05, seed=2),
    Config(width=3, rate=0.2),
)
STEPS = 6


def data_of(static):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(24, static.width)))
    return {"x": x, "y": jnp.sin(jnp.sum(x, 1))}


def build(static, axis_name=None):
    def loss_fn(params, state, batch, key, hyper):
        loss = jnp.mean((batch["x"] @ params - batch["y"]) ** 2)
        return loss, (state, {})

    def init(key, hyper):
        params = jax.random.normal(training.init_key(key), (static.width,))
        return training.init_state(*Variables(params, ()), key, hyper, optimizer)

    def optimizer(hyper):
        return optax.sgd(hyper["rate"])

    def evaluate(train_state, batch):
        return {"loss": loss_fn(train_state.params, (), batch, None, None)[0]}

    step = training.make_train_step(
        training.from_loss(loss_fn), optimizer, axis_name=axis_name
    )
    return training.Program(init, step, evaluate)


def train_group(static, hyper, place):
    data = data_of(static)
    found = groups.fit(
        build(static, place.axis_name),
        hyper,
        place,
        data,
        batching.epochs(24, 8),
        steps=STEPS,
        headline=lambda records: {"last": records[-1]["all/loss"]},
        evaluate={"all": data},
    )
    return [member.summary for member in found]


train = functools.partial(groups.train, train_group=train_group, progress=False)


def new_run(folder, members=MEMBERS) -> runs.Run:
    written = [to_dict(member) for member in members]
    several = written if len(written) > 1 else None
    return runs.create(
        folder, "toy", "test", written[0], {"data_dir": None}, members=several
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two groups, and its summaries."""
    with new_run(tmp_path_factory.mktemp("runs")) as run:
        return run.path, train(MEMBERS, run=run)


def losses(path):
    """Return step and loss of the records of each member."""
    places = runs.members(path) or [path]
    return [[(r["step"], r["all/loss"]) for r in runs.read_metrics(p)] for p in places]


def test_members_equal_runs_of_their_own_in_the_order_of_configs(whole):
    for summary in whole[1]:
        assert list(summary) == ["status", "steps", "last", "seconds"]
        assert (summary["status"], summary["steps"]) == ("done", STEPS)
    for index in (1, 2):
        (own,) = train([MEMBERS[index]])
        assert whole[1][index]["last"] == pytest.approx(own["last"], rel=1e-5)
    assert len({summary["last"] for summary in whole[1]}) == 4


def test_several_groups_have_folders_of_their_own(tmp_path, whole):
    assert sorted(p.name for p in (whole[0] / "checkpoints").iterdir()) == [
        "group-00",
        "group-01",
    ]
    with new_run(tmp_path, MEMBERS[:1]) as run:
        train(MEMBERS[:1], run=run)
        assert sorted(p.name for p in run.checkpoints.iterdir()) == [
            "00000003",
            "00000006",
        ]


def test_a_run_goes_on_where_it_was_killed(tmp_path, monkeypatch, whole):
    def killed(self, step, record, member=None):
        # The first group is done by then.
        if step == STEPS and member == 3:
            raise KeyboardInterrupt
        log(self, step, record, member)

    log = runs.Run.log
    with new_run(tmp_path) as run, monkeypatch.context() as patch:
        patch.setattr(runs.Run, "log", killed)
        with pytest.raises(KeyboardInterrupt):
            train(MEMBERS, run=run)
    with runs.open(run.path) as again:
        summaries = train(MEMBERS, run=again)
    assert losses(run.path) == losses(whole[0])
    last = lambda found: [summary["last"] for summary in found]
    assert last(summaries) == last(whole[1])


def test_a_failing_member_says_so_and_the_others_go_on():
    wild = dataclasses.replace(MEMBERS[0], rate=1e30)
    failed, good = train([wild, MEMBERS[2]])
    assert failed["status"].startswith("failed: loss non-finite at step ")
    assert good["status"] == "done"
    with pytest.raises(FloatingPointError, match="loss became non-finite"):
        train([wild])


def test_what_is_restored_is_what_training_ended_with(whole):
    found = groups.stored(whole[0], Config)
    assert [group.indices for group in found] == [(0, 2), (1, 3)]
    records = losses(whole[0])
    for static, hyper, indices, checkpoints in found:
        step, states = groups.restore(build(static), hyper, checkpoints)
        assert step == STEPS
        for index, state in zip(indices, states, strict=True):
            assert float(state.hyper["rate"]) == np.float32(MEMBERS[index].rate)
            loss = build(static).evaluate(state, data_of(static))["loss"]
            assert float(loss) == pytest.approx(records[index][-1][1], rel=1e-5)


def test_evaluation_repeats_the_last_record(whole):
    found = groups.evaluate(
        whole[0], Config, lambda static: (build(static), {"all": data_of(static)})
    )
    assert [record["member"] for record in found] == [0, 1, 2, 3]
    for record, records in zip(found, losses(whole[0]), strict=True):
        assert record["step"] == STEPS
        assert record["all/loss"] == pytest.approx(records[-1][1], rel=1e-5)


def test_nothing_to_restore_is_refused(tmp_path):
    with new_run(tmp_path) as run:
        pass
    with pytest.raises(UsageError, match="group-00.*whole checkpoint"):
        groups.evaluate(run.path, Config, lambda static: (build(static), {}))


@pytest.mark.parametrize("members", (MEMBERS[:1], (MEMBERS[0], MEMBERS[2])))
def test_devices_share_the_batch_of_one_or_the_members_of_many(members):
    for one, two in zip(train(members), train(members, devices=2), strict=True):
        assert one["last"] == pytest.approx(two["last"], rel=1e-5)


def test_a_place_names_the_axis_of_a_shared_batch():
    assert groups.Place(devices=2).axis_name == "data"
    assert groups.Place(devices=2, indices=(0, 1)).axis_name is None
    assert groups.Place().axis_name is None and groups.Place().mesh("data") is None
    mesh = groups.Place(devices=2).mesh("data")
    assert mesh is not None and mesh.axis_names == ("data",) and mesh.size == 2
    with pytest.raises(UsageError, match="devices: got 3"):
        groups.Place(devices=3).mesh("member")


def test_a_group_without_a_summary_for_each_member_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        groups.train(MEMBERS, lambda static, hyper, place: [{}])
