"""Programs that compile quickly, for tests that run them once."""

import functools

import jax

quick = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
"""`jax.jit` without optimisation."""
