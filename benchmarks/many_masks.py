"""Claim: eleven masks through `fan_out` are no slower than one after the other.

The masks of class removal, the control and one for each class left out, over one frozen
CNN: a step of all of them by `sweep.fan_out` with its default schedule, against eleven
calls of the same compiled step. On a CPU the default is a loop for convolutions, which
can save nothing but must cost nothing (at most 1.1x, the machine's noise included); on
an accelerator it is one batched program, which must be at least 3x faster. Timed in
turn, the least time of each. Exit status 1 if the claim fails.

    python -m benchmarks.many_masks [--repeats 7] [--masks 11]
"""

import argparse

import jax
import jax.numpy as jnp

from benchmarks.mask_step import BATCH, least, make_case
from modmask import mask_update, masks
from modmask.task import Stage
from shared import masking, sweep
from shared.config import split


def main() -> int:
    """Print the ratio; return 1 if it is too large."""
    parser = argparse.ArgumentParser(description="Time many masks at once.")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--masks", type=int, default=11)
    options = parser.parse_args()
    case, count = make_case("cnn"), options.masks
    static, _ = split(case.config)
    variables = case.task.model.init(jax.random.key(0))
    logits = masking.init_logits(variables.params)
    stages = [Stage(str(i)) for i in range(count)]
    states = [
        masks.start(masks.Member(case.config, variables, stage, logits))
        for stage in stages
    ]
    images = jax.random.normal(jax.random.key(1), (count, BATCH, 32, 32, 3))
    batches = (images, jnp.zeros((count, BATCH), jnp.int32))
    step = jax.jit(mask_update.make_step(case.task, static))
    together = sweep.fan_out(step)
    stacked = [sweep.stack(states)]
    parts = sweep.unstack(batches)

    def at_once():
        stacked[0] = jax.block_until_ready(together(stacked[0], batches)[0])

    def in_turn():
        for i, part in enumerate(parts):
            states[i] = jax.block_until_ready(step(states[i], part)[0])

    seconds = least({"fan_out": at_once, "in turn": in_turn}, options.repeats)
    ratio = seconds["fan_out"] / seconds["in turn"]
    limit = 1.1 if jax.default_backend() == "cpu" else 1 / 3
    for name, value in seconds.items():
        print(f"{count} masks, {name:8} {1e3 * value:9.1f} ms a step of all")
    verdict = "within" if ratio <= limit else "NOT within"
    print(f"fan_out takes {ratio:.2f}x of in turn, {verdict} {limit:.2f}x")
    return int(ratio > limit)


if __name__ == "__main__":
    raise SystemExit(main())
