"""Claim: a GAIT step costs little more than a BP step, and both run near the floor.

Times a training step (optimiser included) of BP, GAIT and TP, with and without the
orthogonality regulariser, in turn, and prints each as a ratio to two others measured in
the same run:

* the floor: operations over the speed of products of the step's own shapes, plus the
  optimiser's bytes over the speed of copying. GAIT and TP are charged an LU
  factorisation of each inverted kernel, whether or not one is made;
* the published program's arithmetic in NumPy: float64, a matrix of outer products for
  each sample, explicit inverses every step. Its regulariser is the closed form here;
  the original differentiated it automatically, which is slower.

Then trains BP and GAIT side by side, without regulariser, and prints the ratio of their
times over steps 0 to 300 and 300 on, with what the solver did.

    python -m benchmarks.gaitprop_step [--data-dir DIR]

Without a directory that holds MNIST the digits are enlarged to 28x28.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from gaitprop import train
from gaitprop.config import Config
from shared import data
from shared.config import split

BATCH, CLASSES, SLOPE, GAMMA = 60, 10, 0.1, 1e-3
RULES = {"bp": 1e-4, "gait": 1e-4, "tp": 1e-5}
WEIGHTS = {"bp": 0.1, "gait": 0.1, "tp": 1000.0}


def images(data_dir: str | None) -> tuple[np.ndarray, np.ndarray, int, str]:
    """Return 28x28 images, labels, the largest pixel, and where they come from."""
    if data_dir is not None:
        loaded = data.load("mnist", data_dir)
        pixels, labels = loaded.train.images, loaded.train.labels
        return np.asarray(pixels), np.asarray(labels), loaded.info.scale, "MNIST"
    loaded = data.load("digits", None)
    pixels = np.asarray(loaded.train.images).repeat(4, axis=1).repeat(4, axis=2)
    labels = np.asarray(loaded.train.labels)
    return pixels[:, 2:30, 2:30], labels, loaded.info.scale, "digits enlarged"


class Trainer:
    """A compiled run of steps over the rows in order, and where it has got to."""

    def __init__(self, config: Config, split_: Any, scale: int, chunk: int):
        static, hyper = split(config)
        program = train.build(static, scale=scale)
        per_epoch, size = len(split_.labels) // BATCH, BATCH

        def step(state, t):
            start = (t % per_epoch) * size
            batch = jax.tree.map(
                lambda a: jax.lax.dynamic_slice_in_dim(a, start, size), split_
            )
            return program.step(state, batch)

        def run(state, t):
            return jax.lax.scan(step, state, t + jnp.arange(chunk))

        self.chunk, self.t, self.seconds, self.cpu = chunk, 0, [], []
        self.state = jax.jit(program.init)(jax.random.key(1), hyper)
        arguments = self.state, jnp.int32(0)
        self.run = jax.jit(run, donate_argnums=0).lower(*arguments).compile()

    def advance(self) -> dict[str, np.ndarray]:
        """Train one chunk, record seconds a step, and return the metrics."""
        start, cpu = time.perf_counter(), time.process_time()
        self.state, metrics = self.run(self.state, jnp.int32(self.t))
        jax.block_until_ready(self.state)
        self.seconds.append((time.perf_counter() - start) / self.chunk)
        self.cpu.append((time.process_time() - cpu) / self.chunk)
        self.t += self.chunk
        return jax.device_get(metrics)


def best(fn: Callable[..., Any], *arguments: Any, repeats: int = 7) -> float:
    """Return the shortest time of a compiled function in seconds."""
    compiled = jax.jit(fn).lower(*arguments).compile()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    return min(times[1:])


def speeds(n: int) -> dict[str, float]:
    """Return operations a second of the step's three products, bytes of copying."""
    keys = jax.random.split(jax.random.key(0), 3)
    kernel = jax.random.normal(keys[0], (n, n)) * n**-0.5
    rows = jax.random.normal(keys[1], (BATCH, n))
    # As many bytes as a network's parameters, in memory that is there already.
    large = jax.random.normal(keys[2], (5, n, n))
    size = large.nbytes
    copy = jax.jit(lambda a: a + 1, donate_argnums=0)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        large = jax.block_until_ready(copy(large))
        times.append(time.perf_counter() - start)

    def repeated(op, count):
        def fn(x, y):
            for _ in range(count):
                x = op(x, y)
            return x

        return fn

    # Chains, so that one call is long against the cost of calling.
    thin = best(repeated(jnp.matmul, 16), rows, kernel) / 16
    square = best(repeated(jnp.matmul, 4), kernel, kernel) / 4

    def outer(x, y):
        return [(x + i).T @ y for i in range(8)]

    wide = best(outer, rows, rows) / 8
    return {
        "thin": 2 * BATCH * n * n / thin,
        "outer": 2 * BATCH * n * n / wide,
        "square": 2 * n**3 / square,
        "copy": 2 * size / min(times),
    }


def floor(rule: str, regularised: bool, n: int, depth: int, rate: dict) -> float:
    """Return the shortest possible step in seconds; see the top of this file."""
    thin, cube = 2 * BATCH * n * n, float(n**3)
    seconds = (2 * depth - 1) * thin / rate["thin"] + depth * thin / rate["outer"]
    if rule != "bp":
        seconds += (depth - 1) * (2 / 3) * cube / rate["square"]
    if regularised:
        seconds += depth * 4 * cube / rate["square"]
    # Adam reads gradient, parameter and two means, and writes the last three.
    return seconds + 7 * 4 * depth * (n * n + n) / rate["copy"]


def published_step(
    rule: str, weight: float, kernels: list, biases: list, moments: list, batch: tuple
) -> None:
    """Train one step in place as the published program does."""
    x, labels = batch
    act = lambda z: np.where(z >= 0, z, SLOPE * z)
    undo = lambda y: np.where(y >= 0, y, y / SLOPE)
    slope = lambda y: np.where(y >= 0, 1.0, SLOPE)
    h = [x]
    for w, b in zip(kernels, biases, strict=True):
        h.append(act(h[-1] @ w + b))
    target = h[-1].copy()
    target[:, :CLASSES] = np.eye(CLASSES)[labels]
    errors = [h[-1] - target]
    scale = 1.0
    inverses = [np.linalg.inv(w) for w in kernels[1:]] if rule != "bp" else []
    for i in range(len(kernels) - 1, 0, -1):
        if rule == "bp":
            errors.insert(0, (slope(h[i + 1]) * errors[0]) @ kernels[i].T)
            continue
        share = GAMMA * slope(h[i + 1]) ** 2 if rule == "gait" else 1.0
        moved = (1 - share) * h[i + 1] + share * target
        target = (undo(moved) - biases[i]) @ inverses[i - 1]
        scale = scale / GAMMA if rule == "gait" else 1.0
        errors.insert(0, scale * (h[i] - target))
    for i, error in enumerate(errors):
        delta = slope(h[i + 1]) * error
        products = h[i][:, :, None] * delta[:, None, :]
        step_w, step_b = -products.mean(axis=0), -delta.mean(axis=0)
        if weight:
            gram = kernels[i] @ kernels[i].T
            np.fill_diagonal(gram, 0)
            step_w = step_w - 4 * weight * gram @ kernels[i]
        for value, step, moment in (
            (kernels[i], step_w, moments[i][0]),
            (biases[i], step_b, moments[i][1]),
        ):
            moment[0] = 0.9 * moment[0] + 0.1 * step
            moment[1] = 0.99 * moment[1] + 0.01 * step**2
            value += RULES[rule] * moment[0] / (1e-8 + np.sqrt(moment[1]))


def published_seconds(rule: str, weight: float, n: int, depth: int, batch) -> float:
    """Return the time of one published step, the better of two."""
    draw = np.random.default_rng(0)
    kernels = [np.linalg.qr(draw.standard_normal((n, n)))[0] for _ in range(depth)]
    biases = [np.zeros(n) for _ in range(depth)]
    moments = [([np.zeros((n, n))] * 2, [np.zeros(n)] * 2) for _ in range(depth)]
    times = []
    for _ in range(2):
        start = time.perf_counter()
        published_step(rule, weight, kernels, biases, moments, batch)
        times.append(time.perf_counter() - start)
    return min(times)


def config_of(rule: str, regularised: bool, depth: int) -> Config:
    """Return the published settings of a rule."""
    return Config(
        widths=(784,) * (depth + 1),
        algorithm=rule,
        learning_rate=RULES[rule],
        ortho_weight=WEIGHTS[rule] if regularised else 0.0,
        batch_size=BATCH,
    )


def compare_steps(split_: Any, scale: int, depth: int, rounds: int) -> None:
    """Print the table of steps."""
    n, chunk = 784, 10
    kinds = [(rule, reg) for reg in (False, True) for rule in RULES]
    trainers = {
        kind: Trainer(config_of(*kind, depth), split_, scale, chunk) for kind in kinds
    }
    for _ in range(rounds):
        for trainer in trainers.values():
            trainer.advance()
    rate = speeds(n)
    print("speeds: " + ", ".join(f"{k} {v / 1e9:.0f} G/s" for k, v in rate.items()))
    pixels = np.asarray(split_.images[:BATCH]).reshape(BATCH, -1) / scale
    batch = pixels.astype(np.float64), np.asarray(split_.labels[:BATCH])
    seconds = {kind: min(t.seconds[1:]) for kind, t in trainers.items()}
    for kind in kinds:
        rule, reg = kind
        lowest = floor(rule, reg, n, depth, rate)
        old = published_seconds(rule, WEIGHTS[rule] * reg, n, depth, batch)
        bp = seconds["bp", reg]
        print(
            f"{rule:4} {'regularised' if reg else 'plain':11} "
            f"{seconds[kind] * 1e3:7.1f} ms a step   {seconds[kind] / lowest:5.2f} x "
            f"floor   {old / seconds[kind]:6.1f} x faster than published arithmetic   "
            f"{seconds[kind] / bp:5.2f} x bp"
        )


def compare_runs(split_: Any, scale: int, depth: int, steps: int) -> None:
    """Train BP and GAIT side by side and print the ratio of their times."""
    pair = {r: Trainer(config_of(r, False, depth), split_, scale, 50) for r in RULES}
    del pair["tp"]
    seen = []
    while pair["gait"].t < steps:
        pair["bp"].advance()
        seen.append(pair["gait"].advance())
    parts = {"steps 0 to 300": slice(0, 6), f"steps 300 to {steps}": slice(6, None)}
    for title, part in parts.items():
        times = {rule: np.array(t.seconds[part]) for rule, t in pair.items()}
        cpu = {rule: np.mean(t.cpu[part]) for rule, t in pair.items()}
        figures = {k: np.concatenate([m[k] for m in seen[part]]) for k in seen[0]}
        print(
            f"{title}: gait / bp {times['gait'].mean() / times['bp'].mean():.2f} "
            f"(processor time {cpu['gait'] / cpu['bp']:.2f}, median of chunks "
            f"{np.median(times['gait'] / times['bp']):.2f}); "
            f"sweeps {figures['sweeps'].mean():.1f} a step over {depth - 1} layers, "
            f"a refresh every {1 / max(figures['refreshes'].mean(), 1e-9):.0f} steps, "
            f"fallbacks {figures['fallbacks'].sum():.0f}, "
            f"largest residual {figures['residual'].max():.3e}"
        )


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="directory that holds mnist/")
    parser.add_argument("--hidden", type=int, default=4, help="hidden layers")
    parser.add_argument("--rounds", type=int, default=6, help="repeats of the table")
    parser.add_argument("--steps", type=int, default=1300, help="steps of the runs")
    options = parser.parse_args()
    if options.steps <= 300:
        parser.error("--steps: expected more than 300")
    pixels, labels, scale, source = images(options.data_dir)
    split_ = data.Split(jnp.asarray(pixels), jnp.asarray(labels))
    depth = options.hidden + 1
    print(
        f"backend {jax.default_backend()}, {source}, {options.hidden} hidden layers of "
        f"784, batch {BATCH}, float32"
    )
    compare_steps(split_, scale, depth, options.rounds)
    compare_runs(split_, scale, depth, options.steps)


if __name__ == "__main__":
    main()
