"""A run that is killed at any moment resumes to the numbers of an undisturbed one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import pytest

from gaitprop import train
from gaitprop.config import Config
from shared import checkpoint, config, runs, sweep

ROOT = Path(__file__).parents[2]
# GAIT keeps an old inverse: parameters, moments and that memory must all survive.
TRAIN = (
    "gaitprop digits-h1-gait --widths 64 64 64 --no-diagnose --shuffle "
    "--steps 1100 --eval-every 220 --checkpoint-every 22"
).split()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "scripts.train", *arguments]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """What users run under: optimised programs, compiled once."""
    cache = str(tmp_path_factory.mktemp("cache"))
    ours = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    return {
        **{name: value for name, value in os.environ.items() if name not in ours},
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def finish(environment, *arguments: str) -> str:
    done = subprocess.run(
        command(*arguments), cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, environment) -> Path:
    """A run that nobody kills; it compiles what the others take from the cache."""
    out = tmp_path_factory.mktemp("undisturbed")
    finish(environment, *TRAIN, "--out", str(out))
    return runs.find(out)[0]


def final_state(path: Path):
    stored = config.from_dict(Config, runs.read_config(path)["config"])
    ((static, _, hyper),) = sweep.group([stored])
    values = {name: value[0] for name, value in hyper.items()}
    program = train.build(static, scale=16)
    like = jax.eval_shape(lambda: program.init(jax.random.key(stored.seed), values))
    step, state = checkpoint.restore(path / "checkpoints", like)
    return step, jax.tree.map(
        lambda x: jax.random.key_data(x) if x.dtype == state.key.dtype else x, state
    )


def numbers(path: Path) -> list[dict]:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


def assert_same_run(path: Path, undisturbed: Path) -> None:
    step, state = final_state(path)
    assert step == 1100
    chex.assert_trees_all_equal(state, final_state(undisturbed)[1])
    assert numbers(path) == numbers(undisturbed)
    assert runs.read_summary(path)["status"] == "done"


def written(out: Path) -> int:
    """Return the number of the newest checkpoint, 0 before the first."""
    folders = out.glob("*/*/*/checkpoints")
    return max((s for p in folders for s in checkpoint.steps(p)), default=0) // 22


def kill_repeatedly(out: Path, environment, times: int) -> tuple[Path, int]:
    """Start or resume a run, kill it at a random moment, again; let it finish.

    A moment is soon after one more checkpoint, after two, or in the start-up.

    Returns:
        The run and the number of kills that met a living process.
    """
    moments, kills = random.Random(1), 0
    for i in range(times):
        begun = list(out.glob("*/*/*/config.json"))
        arguments = (
            ["--resume", str(begun[0].parent)] if begun else [*TRAIN, "--out", str(out)]
        )
        more, before = (i + 1) % 3, written(out)
        process = subprocess.Popen(
            command(*arguments),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and written(out) < before + more:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.1 if more else 2.0))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        if list(out.glob("*/*/*/summary.json")):
            break
    (path,) = [p.parent for p in out.glob("*/*/*/config.json")]
    finish(environment, "--resume", str(path))
    return path, kills


@pytest.mark.parametrize("times", (2, pytest.param(20, marks=pytest.mark.slow)))
def test_kills_change_nothing(tmp_path, environment, undisturbed, times):
    path, kills = kill_repeatedly(tmp_path, environment, times)
    # A run may finish before the last of them.
    assert kills >= times // 2
    assert_same_run(path, undisturbed)


def test_damaged_last_checkpoint_falls_back_to_the_one_before(
    tmp_path, environment, undisturbed
):
    path = tmp_path / "copy"
    shutil.copytree(undisturbed, path)
    (path / "summary.json").unlink()
    newest = max((path / "checkpoints").iterdir())
    victim = max(newest.rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    victim.write_bytes(victim.read_bytes()[:-10])
    complaint = finish(environment, "--resume", str(path))
    assert "damaged" in complaint and str(newest) in complaint
    assert_same_run(path, undisturbed)
