"""Settings that every test runs under."""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version

# A subprocess started by a test inherits these, and so do the workers of a session:
# what several tests compile is compiled once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most programs run once: unoptimised, they compile in a fraction of the time. Tests of
# what users run take the fixture `optimised`, or drop these settings in a subprocess;
# `XLA_FLAGS= JAX_DISABLE_MOST_OPTIMIZATIONS=0` optimises the whole suite.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if version("jaxlib").startswith("0.10."):
    # A jaxlib that does not know the flag stops at it.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="five-nets-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], True)

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_finish() -> None:
    """Spare the garbage collector the imported modules: a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture
def key() -> jax.Array:
    """A fixed random key."""
    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def release() -> Iterator[None]:
    """Let go of compiled programs, which would fill gigabytes by the end."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """Programs are optimised: for tests that run them for long."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
