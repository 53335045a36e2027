"""Run directories: whole at any moment, one writer, no record lost or doubled."""

import json
import math
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from shared import runs
from shared.errors import UsageError

CONFIG = {"widths": [4, 2], "rate": 0.1}


def _create(root, **changes):
    members = changes.pop("members", None)
    options = {"seeds": 1, "out": Path("runs"), **changes}
    return runs.create(root, "system", "experiment", CONFIG, options, members)


def _steps(path):
    return [record["step"] for record in runs.read_metrics(path)]


def test_a_run_can_be_recreated_from_what_it_wrote(tmp_path):
    with _create(tmp_path) as run:
        run.log(1, {"loss": 0.5})
        assert runs.read_summary(run.path) is None
        run.finish({"accuracy": 0.75, "bound": math.inf})
    assert run.path.parent == tmp_path / "system" / "experiment"
    config = runs.read_config(run.path)
    assert config["config"] == CONFIG
    assert config["options"] == {"seeds": 1, "out": "runs"}
    assert (config["system"], config["experiment"]) == ("system", "experiment")
    assert {"version", "library", "jax", "created"} <= set(config)
    assert runs.read_summary(run.path) == {"accuracy": 0.75, "bound": math.inf}
    assert run.checkpoints.is_dir() and run.figures.is_dir()


def test_metrics_are_valid_json_and_come_back_with_their_values(tmp_path):
    metrics = {
        "nan": math.nan,
        "down": -math.inf,
        "array": np.float32([0.1, np.inf]),
        "scalar": jnp.float32(0.1),
        "count": np.int64(3),
        "note": "text",
    }
    with _create(tmp_path) as run:
        run.log(7, metrics)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    for line in (run.path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    (record,) = runs.read_metrics(run.path)
    assert math.isnan(record["nan"]) and record["down"] == -math.inf
    assert record["scalar"] == float(np.float32(0.1))
    assert (record["step"], record["count"], record["note"]) == (7, 3, "text")


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b'{"step": 3}', b"\xff\x00\n"])
def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path, torn):
    with _create(tmp_path) as run:
        run.log(1, {"loss": 1.0})
        run.log(2, {"loss": 0.5})
    file = run.path / "metrics.jsonl"
    file.write_bytes(file.read_bytes() + torn)
    assert _steps(run.path) == [1, 2]
    with runs.open(run.path) as again:
        again.cut(2)
        again.log(3, {"loss": 0.25})
    assert _steps(run.path) == [1, 2, 3]
    assert file.read_bytes().count(b"\n") == 3


def test_cut_drops_what_came_after_the_checkpoint(tmp_path):
    with _create(tmp_path, members=[CONFIG, CONFIG]) as run:
        for step in (1, 2, 3, 4):
            run.log(step, {"x": step}, member=0)
            run.log(step, {"x": step}, member=1)
    with runs.open(run.path) as run:
        run.cut(2)
    assert [_steps(path) for path in run.members] == [[1, 2], [1, 2]]


def test_a_run_that_begins_again_cuts_everything(tmp_path):
    """Killed before its first checkpoint, it starts again at step 0."""
    with _create(tmp_path) as run:
        for step in (0, 5, 10):
            run.log(step, {"first": step})
    with runs.open(run.path) as run:
        run.cut(-1)
        for step in (0, 5):
            run.log(step, {"second": step})
        assert [sorted(r) for r in run.records()] == [["second", "step"]] * 2


def test_cut_of_some_members_leaves_the_others(tmp_path):
    """Members with other static settings have checkpoints of their own."""
    with _create(tmp_path, members=[CONFIG, CONFIG, CONFIG]) as run:
        for member in range(3):
            run.log(1, {"loss": 1.0}, member)
            run.log(2, {"loss": 0.5}, member)
        run.cut(1, [0, 2])
        assert [len(run.records(member)) for member in range(3)] == [1, 2, 1]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    with _create(tmp_path) as run:
        run.log(1, {})
    (run.path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UsageError, match="line 2"):
        runs.read_metrics(run.path)


def test_members_read_like_runs(tmp_path):
    configs = [{**CONFIG, "seed": seed} for seed in range(3)]
    with _create(tmp_path, seeds=3, members=configs) as run:
        run.log(1, {"loss": 0.0}, member=2)
        run.finish({"mean": 1.0}, [{"own": i} for i in range(3)])
    paths = runs.members(run.path)
    assert [path.name for path in paths] == ["000", "001", "002"]
    assert [runs.read_config(path)["config"]["seed"] for path in paths] == [0, 1, 2]
    assert [_steps(path) for path in paths] == [[], [], [1]]
    assert runs.read_summary(paths[1]) == {"own": 1}
    assert runs.find(paths[1]) == [paths[1]]
    with runs.open(paths[1], lock=False) as member:
        assert member.config["member"] == 1
    with pytest.raises(UsageError, match="a whole run"):
        runs.open(paths[1])


def test_find_lists_runs_but_not_their_members(tmp_path):
    found = []
    for _ in range(2):
        with _create(tmp_path, members=[CONFIG, CONFIG]) as run:
            found.append(run.path)
    (tmp_path / "system" / "unfinished").mkdir()
    assert runs.find(tmp_path) == sorted(found)
    assert runs.find(found[0]) == [found[0]]
    with pytest.raises(UsageError, match="run directory"):
        runs.find(tmp_path / "system" / "unfinished")


def test_what_a_kill_at_creation_left_is_not_found(tmp_path):
    with _create(tmp_path, members=[CONFIG, CONFIG]) as run:
        (run.path / "config.json").unlink()
    with pytest.raises(UsageError, match="run directory"):
        runs.find(tmp_path)


def test_members_are_in_order_of_their_numbers(tmp_path):
    for name in ("999", "1000", "101"):
        (tmp_path / "members" / name).mkdir(parents=True)
        (tmp_path / "members" / name / "config.json").touch()
    assert [p.name for p in runs.members(tmp_path)] == ["101", "999", "1000"]


def test_a_run_that_lost_a_member_is_not_gone_on_with(tmp_path):
    with _create(tmp_path, members=[CONFIG] * 3) as run:
        (run.members[1] / "config.json").unlink()
    with pytest.raises(UsageError, match=r"all its 3 members \(it has 2\)"):
        runs.open(run.path)
    assert len(runs.open(run.path, lock=False).members) == 2


@pytest.mark.parametrize("text", ['{"tor', "[1]"])
def test_a_damaged_summary_is_told_by_name(text, tmp_path):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UsageError, match="summary.json"):
        runs.read_summary(tmp_path)


HOLD = """
import sys
from shared import runs
with runs.open(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    with _create(tmp_path) as run:
        path = run.path
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {holder.pid} has it open"):
            runs.open(path)
        runs.open(path, lock=False).close()
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    runs.open(path).close()


def test_without_the_lock_nothing_is_written(tmp_path):
    with _create(tmp_path) as run:
        pass
    with runs.open(run.path, lock=False) as reader:
        with pytest.raises(RuntimeError, match="not open for writing"):
            reader.log(1, {})


def test_a_kill_during_creation_leaves_no_run(tmp_path, monkeypatch):
    """The config is written last and in one go, whatever it was interrupted at."""
    original = runs.os.replace

    def stop(source, target):
        if Path(target).parent.parent.name == "experiment":
            raise KeyboardInterrupt
        original(source, target)

    monkeypatch.setattr(runs.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        _create(tmp_path, members=[CONFIG])
    monkeypatch.undo()
    with pytest.raises(UsageError):
        runs.open(next((tmp_path / "system" / "experiment").iterdir()))


def test_an_interrupt_says_how_to_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught:
        with _create(tmp_path) as run:
            raise KeyboardInterrupt
    assert f"--resume {run.path}" in caught.value.__notes__[0]


def _rewrite(path, **changes):
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_bad_directories(tmp_path):
    with pytest.raises(UsageError, match="it has no config.json"):
        runs.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can be written"):
        _create(tmp_path / "file")
    with _create(tmp_path) as run:
        pass
    _rewrite(run.path, version=runs.VERSION + 1)
    with pytest.raises(UsageError, match="newer version of this library"):
        runs.open(run.path)
    (run.path / "config.json").write_text('{"version": 1}')
    with pytest.raises(UsageError, match="a run's config"):
        runs.open(run.path)
    (run.path / "config.json").write_text('{"ver')
    with pytest.raises(UsageError, match="JSON with a version"):
        runs.open(run.path)


def test_sinks_that_are_unknown_or_absent(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="one of tensorboard, wandb, trackio"):
        _create(tmp_path, sinks=["csv"])
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UsageError, match=r"pip install 'five-nets\[tensorboard\]'"):
        _create(tmp_path, sinks=["tensorboard"])
    assert not list(tmp_path.iterdir())


def test_sinks_get_every_number(tmp_path, monkeypatch):
    calls = []

    class Writer:
        def __init__(self, folder, purge_step, filename_suffix):
            calls.append(("open", Path(folder).name, purge_step))

        def add_scalar(self, name, value, step):
            calls.append((name, value, step))

        def close(self):
            calls.append("close")

    tracker = types.SimpleNamespace(
        init=lambda **settings: calls.append(settings["name"]),
        log=lambda metrics, step: calls.append((metrics, step)),
        finish=lambda: calls.append("finish"),
    )
    writers = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "tensorboardX", writers)
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    with _create(
        tmp_path, sinks=("tensorboard", "wandb"), members=[CONFIG, CONFIG]
    ) as run:
        run.log(4, {"loss": 0.5, "note": "text", "good": True}, member=1)
        run.log(5, {"loss": 0.25})
    assert calls == [
        run.path.name,
        ("open", "001", 4),
        ("loss", 0.5, 4),
        ({"001/loss": 0.5}, 4),
        ("open", "run", 5),
        ("loss", 0.25, 5),
        ({"loss": 0.25}, 5),
        "close",
        "close",
        "finish",
    ]
