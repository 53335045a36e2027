"""Claim: drawing masks by the hash is many times faster than by threefry.

Times, in turn and for the same logits, masks `[N, *shape]` times weights, which is what
a mask step needs: with the hash, with JAX's threefry, and without noise (the weights
copied N times: what writing the result costs at least); then the gradients of the
former two. Prints each as a ratio to the hash. Exit status 1 if threefry is less than
2x slower.

    python -m benchmarks.mask_noise [--millions 48] [--repeats 10]
"""

import argparse

import jax
import jax.numpy as jnp

from benchmarks.mask_step import least
from shared import masking

SAMPLES, WIDTH, LEAST = 4, 2000, 2.0


def forward(source: str):
    """Return N masked copies of the weights."""

    def draw(logits, weights, key):
        if source == "none":
            return [jnp.broadcast_to(w, (SAMPLES, *w.shape)) for w in weights]
        drawn = masking.sample(logits, SAMPLES, key=key, source=source)
        return [m * w[None] for m, w in zip(drawn, weights, strict=True)]

    return draw


def gradient(source: str):
    """Return the gradient of the logits for gradients of the masked weights."""

    def pull(logits, weights, key, upward):
        draw = lambda logits: forward(source)(logits, weights, key)
        return jax.vjp(draw, logits)[1](upward)

    return pull


def main() -> int:
    """Print the table; return 1 if the hash gains too little."""
    parser = argparse.ArgumentParser(description="Time sources of noise.")
    parser.add_argument("--millions", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    rows = options.millions * 1_000_000 // (3 * SAMPLES * WIDTH)
    key = jax.random.key(0)
    weights = list(jax.random.normal(key, (3, rows, WIDTH)))
    logits = [jnp.full_like(w, 2.0) for w in weights]
    runs, inputs = {}, (logits, weights, key)
    for source in ("none", "hash", "threefry"):
        runs[source] = runner(forward(source), *inputs)
    upward = [jnp.broadcast_to(w, (SAMPLES, *w.shape)) * 1 for w in weights]
    for source in ("hash", "threefry"):
        runs[f"{source}, gradient"] = runner(gradient(source), *inputs, upward)
    seconds = least(runs, options.repeats)
    count = 3 * SAMPLES * rows * WIDTH
    print(f"{count / 1e6:.0f} M masks on {jax.default_backend()}")
    for name, value in seconds.items():
        print(f"{name:20} {1e3 * value:9.1f} ms  {value / seconds['hash']:6.2f}x")
    ratio = seconds["threefry"] / seconds["hash"]
    return int(ratio < LEAST)


def runner(fn, *arguments):
    compiled = jax.jit(fn).lower(*arguments).compile()
    return lambda: jax.block_until_ready(compiled(*arguments))


if __name__ == "__main__":
    raise SystemExit(main())
