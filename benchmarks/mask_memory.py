"""Claim: a mask step of the Mathematics transformer fits into 24 GB.

512 wide, 8 heads, 2048 hidden units, 6 + 6 layers, 95 characters; N = 8 masks, batch of
64 with sources of 161 characters and targets of 31. The step is compiled, not run: what
it needs is what XLA plans. The masks are drawn and used one after the other; with --how
vmap all at once, for comparison. Exit status 1 if the plan exceeds the limit.

    python -m benchmarks.mask_memory [--how loop] [--batch 64]
"""

import argparse
import math
from typing import Literal

import jax
import jax.numpy as jnp

from modmask import mask_update, masks, names
from modmask.config import Config
from modmask.models.transformer import transformer
from modmask.task import Stage, Task
from modmask.tasks import sequences
from shared import masking
from shared.config import split

LIMIT = 24e9
SYMBOLS, SOURCE, TARGET = 95, 161, 31


def make_config(how: Literal["loop", "vmap"], batch: int) -> Config:
    """Return the settings of the Mathematics experiments."""
    return Config(
        task="deepmind_math",
        batch_size=batch,
        mask_samples=8,
        mask_how=how,
        mask_biases=False,
        state_size=512,
        heads=8,
        ff_multiplier=4.0,
        encoder_layers=6,
        decoder_layers=6,
        tied_embeddings=True,
    )


def make_task(config: Config) -> Task:
    """Return the transformer with its losses; layers are computed twice, not kept."""
    model = transformer(
        SYMBOLS,
        SYMBOLS,
        width=config.state_size,
        ff_multiplier=config.ff_multiplier,
        tied=config.tied_embeddings,
        heads=config.heads,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        max_out=TARGET,
        remat=True,
    )
    return sequences.task(model)


def plan(config: Config) -> tuple[int, dict[str, int]]:
    """Return the number of masked weights, and bytes of the compiled step by use."""
    task, (static, _) = make_task(config), split(config)

    variables = jax.eval_shape(task.model.init, jax.random.key(0))
    # Zeros, for initialisers of this size take longer than the rest.
    variables = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), variables)
    chosen = names.masked(variables.params, config)
    logits = masking.init_logits(variables.params, chosen)
    state = masks.start(masks.Member(config, variables, Stage("all"), logits))
    shape = lambda *axes: jax.ShapeDtypeStruct((config.batch_size, *axes), jnp.int32)
    batch = {
        "source": shape(SOURCE),
        "source_length": shape(),
        "target": shape(TARGET),
        "target_length": shape(),
    }
    step = jax.jit(mask_update.make_step(task, static), donate_argnums=0)
    found = step.lower(state, batch).compile().memory_analysis()
    assert found is not None
    uses = {
        "state": found.argument_size_in_bytes,
        "new": found.output_size_in_bytes - found.alias_size_in_bytes,
        "temporary": found.temp_size_in_bytes,
    }
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(logits)), uses


def main() -> int:
    """Print the plan; return 1 if it is too large."""
    parser = argparse.ArgumentParser(description="Memory of a large mask step.")
    parser.add_argument("--how", default="loop", choices=("loop", "vmap"))
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    weights, uses = plan(make_config(options.how, options.batch))
    total = sum(uses.values())
    parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in uses.items())
    print(f"{weights / 1e6:.1f} M masked weights, {options.how}: {parts} GB")
    verdict = "within" if total <= LIMIT else "NOT within"
    print(f"in all {total / 1e9:.2f} GB, {verdict} {LIMIT / 1e9:.0f} GB")
    return int(total > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
