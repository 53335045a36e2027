"""Claim: the default schedule of `sweep.fan_out` is within 1.3x of the best one.

Two programs of several members: a chunk of training steps of a small dense net, and
one training step of a small convolutional net. All schedules are timed in turn in the
same run, and the least time of each is kept. Exit status 1 if the claim fails.

    python -m benchmarks.fan_out [--members 4] [--repeats 15]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from shared import sweep

LIMIT = 1.3
STEPS, RATE = 50, 0.01


class Case(NamedTuple):
    """A program of many members.

    Attributes:
        fn: function of one member's parameters and the data.
        members: parameters with a leading member axis.
        data: what all members share.
    """

    fn: Callable[[Any, Any], Any]
    members: Any
    data: Any


def dense_case(members: int) -> Case:
    """Return 50 steps of a 64-64-10 net on batches of 32."""
    images = jax.random.normal(jax.random.key(0), (STEPS, 32, 64))
    labels = jnp.zeros((STEPS, 32), jnp.int32)

    def loss(params, batch):
        hidden = jnp.maximum(batch[0] @ params["in"], 0)
        return cross_entropy(hidden @ params["out"], batch[1])

    def chunk(params, data):
        body = lambda params, batch: (descend(loss, params, batch), None)
        return lax.scan(body, params, data)[0]

    shapes = {"in": (64, 64), "out": (64, 10)}
    return Case(chunk, weights(shapes, members), (images, labels))


def conv_case(members: int) -> Case:
    """Return one step of a net with two 3x3 convolutions on 32 images of 16x16."""
    images = jax.random.normal(jax.random.key(0), (32, 16, 16, 3))
    labels = jnp.zeros(32, jnp.int32)

    def convolve(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=layout
        )
        return jnp.maximum(x, 0)

    def loss(params, batch):
        x = convolve(convolve(batch[0], params["first"]), params["second"])
        return cross_entropy(x.mean((1, 2)) @ params["out"], batch[1])

    def step(params, batch):
        return descend(loss, params, batch)

    shapes = {"first": (3, 3, 3, 16), "second": (3, 3, 16, 32), "out": (32, 10)}
    return Case(step, weights(shapes, members), (images, labels))


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def descend(loss, params, batch):
    """Take one step of gradient descent."""
    grads = jax.grad(loss)(params, batch)
    return jax.tree.map(lambda p, g: p - RATE * g, params, grads)


def weights(shapes, members: int):
    key = jax.random.key(1)
    return {
        name: 0.1 * jax.random.normal(jax.random.fold_in(key, i), (members, *shape))
        for i, (name, shape) in enumerate(shapes.items())
    }


def measure(case: Case, repeats: int) -> dict[str, float]:
    """Return the least seconds of a call by each schedule, timed in turn."""
    fn = jax.jit(case.fn)
    schedules = {
        how: sweep.fan_out(fn, how=how, in_axes=(0, None))
        for how in ("auto", *sweep.SCHEDULES)
    }
    for run in schedules.values():
        jax.block_until_ready(run(case.members, case.data))
    least = dict.fromkeys(schedules, float("inf"))
    for _ in range(repeats):
        for how, run in schedules.items():
            start = time.perf_counter()
            jax.block_until_ready(run(case.members, case.data))
            least[how] = min(least[how], time.perf_counter() - start)
    return least


def main() -> int:
    """Print the table; return 1 if a default is too slow."""
    parser = argparse.ArgumentParser(description="Time the schedules of fan_out.")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    print(f"{options.members} members on {jax.default_backend()}; ratios to the best")
    failed = False
    for name, make in {"dense chunk": dense_case, "conv step": conv_case}.items():
        seconds = measure(make(options.members), options.repeats)
        best = min(seconds.values())
        for how, value in seconds.items():
            print(f"{name:12} {how:5} {1e3 * value:9.2f} ms  {value / best:7.2f}x")
        ratio = seconds["auto"] / best
        failed |= ratio > LIMIT
        verdict = "NOT within" if ratio > LIMIT else "within"
        print(f"{name:12} the default is {verdict} {LIMIT}x of the best\n")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
