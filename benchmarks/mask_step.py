"""Claim: training a mask costs few times what training the weights does.

Steps of both, optimiser included, of the same network on the same batch of 128, with
N = 4 mask samples: timed in turn in the same run, and the least time of each is kept.
The limits: 4x for the feed-forward networks of 800 and 2000 units, 3x for the LSTM,
1.3x for the small CNN. Exit status 1 if one is exceeded.

    python -m benchmarks.mask_step [--repeats 20] [--only NAME ...]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modmask import mask_update, masks, weights
from modmask.config import Config
from modmask.find import accuracy, cross_entropy
from modmask.models.convnet import convnet
from modmask.task import Stage, Task
from modmask.tasks import addmul, pairs
from shared import masking
from shared.config import split
from shared.model import Variables

BATCH = 128
LIMITS = {"ff 800x4": 4.0, "ff 2000x4": 4.0, "lstm 2x256": 3.0, "cnn": 1.3}


class Case(NamedTuple):
    """A network with a batch of its data.

    Attributes:
        task: network and losses.
        config: settings.
        batch: rows.
        setting: scalars for the loss.
    """

    task: Task
    config: Config
    batch: Any
    setting: Any = ()


def make_case(name: str) -> Case:
    """Return one of the networks of `LIMITS`."""
    if name == "cnn":
        key = jax.random.key(0)
        images = jax.random.normal(key, (BATCH, 32, 32, 3))
        labels = jax.random.randint(key, (BATCH,), 0, 10)
        task = Task(convnet(3, 10), cross_entropy, accuracy)
        return Case(task, Config(task="cifar10_class_removal"), (images, labels))
    if name.startswith("lstm"):
        config = Config(task="tuple", state_size=256, layers=2)
        rows = pairs.arrays("train", config, items=BATCH)
        return Case(pairs.make_task(config), config, to_device(rows), np.int32(-1))
    width = int(name.removeprefix("ff ").removesuffix("x4"))
    config = Config(task="addmul_ff", layer_sizes=(width,) * 4)
    rows = addmul.arrays("train", config, items=BATCH)
    return Case(addmul.make_task(config), config, to_device(rows))


def to_device(rows: Any) -> Any:
    return jax.tree.map(lambda a: jnp.asarray(a[:BATCH]), rows)


def weight_step(case: Case) -> Callable[[], Any]:
    """Return what takes one step of the weights, and waits for it."""
    static, hyper = split(case.config)
    program = weights.build(case.task, static)
    hyper = {**hyper, "setting": case.setting}
    return stepper(program.step, program.init(jax.random.key(0), hyper), case.batch)


def mask_step(case: Case) -> Callable[[], Any]:
    """Return what takes one step of the mask, and waits for it."""
    static, _ = split(case.config)
    variables = case.task.model.init(jax.random.key(0))
    stage = Stage("control", None, case.setting)
    state = masks.start(masks.Member(case.config, *prepared(variables, stage)))
    return stepper(mask_update.make_step(case.task, static), state, case.batch)


def prepared(variables: Variables, stage: Stage) -> tuple[Variables, Stage, Any]:
    return variables, stage, masking.init_logits(variables.params)


def stepper(step: Callable, state: Any, batch: Any) -> Callable[[], Any]:
    """Compile a step, and keep its state in a closure."""
    # The key is a part of the state, and of no other one: nothing may be donated twice.
    state = jax.tree.map(jnp.array, state)
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    states = [state]

    def run() -> Any:
        new, metrics = compiled(states.pop(), batch)
        states.append(jax.block_until_ready(new))
        return metrics

    return run


def least(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the shortest seconds of each, timed in turn."""
    for run in runs.values():
        run()
    seconds = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def main() -> int:
    """Print the table; return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description="Time mask against weight steps.")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=list(LIMITS))
    options = parser.parse_args()
    failed = False
    for name in options.only or LIMITS:
        case = make_case(name)
        runs = {"weights": weight_step(case), "mask": mask_step(case)}
        seconds = least(runs, options.repeats)
        ratio, limit = seconds["mask"] / seconds["weights"], LIMITS[name]
        failed |= ratio > limit
        print(
            f"{name:10} weights {1e3 * seconds['weights']:8.1f} ms   "
            f"mask {1e3 * seconds['mask']:8.1f} ms   {ratio:5.2f}x, "
            f"{'NOT within' if ratio > limit else 'within'} {limit}x"
        )
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
