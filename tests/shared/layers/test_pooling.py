"""Pooling against windows written out; the fast form equals the general one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared.errors import UsageError
from shared.layers.pooling import avg_pool, global_avg_pool, global_max_pool, max_pool


@pytest.fixture(scope="module")
def x(draw):
    return draw(2, 6, 7, 3) - 3


def windows(x, size, stride, pads):
    """Collect the values of each window, padding as NaN."""
    x = np.pad(np.asarray(x), [(0, 0), *pads, (0, 0)], constant_values=np.nan)
    rows = range(0, x.shape[1] - size + 1, stride)
    columns = range(0, x.shape[2] - size + 1, stride)
    blocks = [[x[:, i : i + size, j : j + size] for j in columns] for i in rows]
    return np.stack([np.stack(row, 1) for row in blocks], 1)


CASES = [
    (3, 1, "SAME", ((1, 1), (1, 1))),
    (3, 2, "SAME", ((0, 1), (1, 1))),
    (2, 2, "SAME", ((0, 0), (0, 1))),
    (2, None, "VALID", ((0, 0), (0, 0))),
    (3, 2, 1, ((1, 1), (1, 1))),
]


@pytest.mark.parametrize(("size", "stride", "padding", "pads"), CASES)
def test_pools_reduce_windows(x, size, stride, padding, pads):
    cut = windows(x, size, stride or size, pads)
    largest = max_pool(x, size, stride=stride, padding=padding)
    np.testing.assert_allclose(largest, np.nanmax(cut, (3, 4)), rtol=1e-6)
    mean = avg_pool(x, size, stride=stride, padding=padding)
    np.testing.assert_allclose(mean, np.nanmean(cut, (3, 4)), rtol=1e-5)
    counted = avg_pool(x, size, stride=stride, padding=padding, count_padding=True)
    expected = np.nansum(cut, (3, 4)) / size**2
    np.testing.assert_allclose(counted, expected, rtol=1e-5)


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_tiling_windows_take_the_fast_form_with_equal_gradients(x, pool):
    x = x[:, :, :6]
    program = str(jax.make_jaxpr(lambda x: pool(x, 2))(x))
    assert "reduce_window" not in program
    # A border that no window reaches asks for the general form.
    general = lambda x: pool(jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))), 2)
    assert "reduce_window" in str(jax.make_jaxpr(general)(x))
    loss = lambda f: lambda x: jnp.sum(jnp.sin(f(x)))
    fast, slow = (
        jax.jit(jax.grad(loss(f)))(x) for f in (lambda x: pool(x, 2), general)
    )
    np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-6)


def test_global_pools_and_leading_axes(x):
    np.testing.assert_allclose(
        global_avg_pool(x), np.mean(x, (1, 2)), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(global_max_pool(x), np.max(x, (1, 2)))
    np.testing.assert_allclose(max_pool(x[0], 3), max_pool(x, 3)[0])
    np.testing.assert_allclose(max_pool(x[None], 2)[0], max_pool(x, 2))


def test_wrong_arguments(x):
    with pytest.raises(UsageError, match="window"):
        max_pool(x, 0)
    with pytest.raises(UsageError, match="padding"):
        avg_pool(x, 2, padding="FULL")
