"""Claim: `fit` chooses the better schedule, a scan of steps or a Python loop.

Trains a small MLP and a small convolutional network with both schedules and with the
default, in turn, and prints the time of each relative to the best. The default must be
within 1.3 of it for both.

    python -m benchmarks.training_loop
"""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from shared import training
from shared.data import batching

ROWS, BATCH, STEPS, REPEATS, LIMIT = 512, 32, 48, 3, 1.3


class Rows(NamedTuple):
    images: jax.Array
    labels: jax.Array


def mlp(key):
    """Return parameters and logits of a 64-32-10 perceptron."""
    one, two = jax.random.split(key)
    params = {
        "hidden": jax.random.normal(one, (64, 32)) / 8,
        "out": jax.random.normal(two, (32, 10)) / 6,
    }

    def logits(params, images):
        flat = images.reshape(len(images), 64)
        return jax.nn.relu(flat @ params["hidden"]) @ params["out"]

    return params, logits


def convnet(key):
    """Return parameters and logits of a network with two 3x3 convolutions."""
    one, two, three = jax.random.split(key, 3)
    params = {
        "first": jax.random.normal(one, (3, 3, 1, 16)) / 3,
        "second": jax.random.normal(two, (3, 3, 16, 32)) / 12,
        "out": jax.random.normal(three, (32, 10)) / 6,
    }

    def conv(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def logits(params, images):
        x = jax.nn.relu(conv(images, params["first"]))
        x = jax.nn.relu(conv(x, params["second"]))
        return x.mean(axis=(1, 2)) @ params["out"]

    return params, logits


def measure(network) -> dict[str, float]:
    """Return seconds per step of each schedule, the least of several runs."""
    params, logits = network(jax.random.key(0))

    def loss_fn(params, state, batch, key, hyper):
        scores = logits(params, batch.images)
        labels = batch.labels
        loss = optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()
        return loss, (state, {})

    optimizer = lambda hyper: optax.adam(1e-3)
    step = training.make_train_step(training.from_loss(loss_fn), optimizer)
    program = training.Program(lambda key, hyper: None, step, lambda s, b: {})
    images = jax.random.normal(jax.random.key(1), (ROWS, 8, 8, 1))
    rows = Rows(images, jnp.arange(ROWS) % 10)
    batches = batching.epochs(ROWS, BATCH)
    start = training.init_state(params, (), jax.random.key(2), {}, optimizer)

    def seconds(schedule: str) -> float:
        marks = []
        training.fit(
            program,
            start,
            rows,
            batches,
            steps=3 * STEPS,
            log_every=STEPS,
            schedule=schedule,
            progress=False,
            log=lambda *_: marks.append(time.perf_counter()),
        )
        # The first chunk compiles.
        return min(b - a for a, b in zip(marks, marks[1:], strict=False)) / STEPS

    best: dict[str, float] = {}
    for _ in range(REPEATS):
        for schedule in ("scan", "step", "auto"):
            best[schedule] = min(best.get(schedule, 1e9), seconds(schedule))
    return best


def main() -> None:
    """Print one line per network."""
    print(f"backend {jax.default_backend()}, {jax.device_count()} device(s)")
    for network in (mlp, convnet):
        times = measure(network)
        best = min(times["scan"], times["step"])
        ratios = ", ".join(f"{k} {v / best:.2f}" for k, v in times.items())
        verdict = "ok" if times["auto"] / best <= LIMIT else "MISSED"
        print(
            f"{network.__name__:8} best {best * 1e3:.3f} ms a step; "
            f"relative: {ratios}; default within {LIMIT}: {verdict}"
        )


if __name__ == "__main__":
    main()
