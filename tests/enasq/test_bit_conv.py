"""Packed convolutions: the integers that NumPy gives."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import numpy as jnp

from enasq import bit_conv, bit_depthwise, packing
from enasq.packing import Columns, Packed
from shared.errors import UsageError
from tests.enasq.codes import KINDS, convolve, draw, kinds, seeds
from tests.quick import quick

BINARY = KINDS[0]
geometry = st.tuples(
    st.sampled_from(((1, 1), (3, 3), (2, 4))),
    st.integers(1, 3),
    st.sampled_from(bit_conv.PADDINGS),
    st.sampled_from(bit_conv.FILLS),
    st.sampled_from(((5, 5), (6, 7))),
)


@settings(max_examples=5, deadline=None, derandomize=True)
@example(0, BINARY, BINARY, ((3, 3), 2, "same", "zero", (6, 7)), 33, "auto")
@example(1, BINARY, KINDS[2], ((2, 4), 1, "same", "zero", (5, 5)), 5, "auto")
@given(
    seeds,
    kinds,
    kinds,
    geometry,
    st.sampled_from((1, 5, 33)),
    st.sampled_from(("auto", "auto", "int8", "float")),
)
def test_convolutions_are_exact(seed, one, two, where, channels, how):
    window, strides, padding, fill, size = where
    x = draw(seed, *one, (2, *size, channels))
    w = draw(seed + 1, *two, (*window, channels, 3))
    run = quick(
        lambda x, w: bit_conv.conv(
            packing.pack(x, *one),
            packing.pack_columns(w, *two),
            strides=strides,
            padding=padding,
            fill=fill,
            how=how,
        )
    )
    expected = convolve(x, w, strides, padding, int(fill == "one"))
    np.testing.assert_array_equal(run(x, w), expected)


@settings(max_examples=5, deadline=None, derandomize=True)
@example(0, BINARY, BINARY, ((3, 3), 1, "same", "zero", (5, 5)), 33)
@given(seeds, kinds, kinds, geometry, st.sampled_from((3, 33)))
def test_depthwise_sums_are_exact(seed, one, two, where, channels):
    window, strides, padding, fill, size = where
    x = draw(seed, *one, (2, *size, channels))
    w = draw(seed + 1, *two, (*window, channels))
    options = {"strides": strides, "padding": padding, "fill": fill}

    def run(x, w):
        packed = packing.pack(x, *one), packing.pack(w, *two)
        sums = bit_depthwise.depthwise(*packed, **options)
        return (
            packing.unpack(sums),
            sums.planes,
            bit_depthwise.depthwise_numbers(x, w, **options),
        )

    ours, planes, numbers = quick(run)(x, w)
    expected = convolve(x, w, strides, padding, int(fill == "one"))
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(numbers, expected)
    # What a later product reads beyond the channels must be nothing.
    tail = ~bit_conv.ones_words(channels)
    assert not np.any(np.asarray(planes) & tail)


def test_sums_of_a_depthwise_stage_go_into_the_next_product():
    x, w = draw(0, "ternary", 1, (1, 4, 4, 6)), draw(1, "ternary", 1, (3, 3, 6))
    point = draw(2, "ternary", 1, (1, 1, 6, 5))

    def run(x, w, point):
        packed = packing.pack(x, "ternary"), packing.pack(w, "ternary")
        sums = bit_depthwise.depthwise(*packed)
        return bit_conv.conv(sums, packing.pack_columns(point, "ternary"))

    expected = convolve(convolve(x, w, 1, "same"), point, 1, "same")
    np.testing.assert_array_equal(quick(run)(x, w, point), expected)


def test_convolutions_refuse_what_does_not_fit():
    words = lambda *shape: jnp.zeros((1, *shape), jnp.uint32)
    x = Packed(words(1, 4, 4, 1), "binary", 3)
    kernel = Columns(words(9, 2), "binary", 3, (3, 3))
    other = Columns(words(9, 2), "binary", 4, (3, 3))
    large = Columns(words(25, 2), "binary", 3, (5, 5))
    for call, message in (
        (lambda: bit_conv.conv(x, other), "images of 4 channels"),
        (lambda: bit_conv.conv(x, large, padding="valid"), "at most the image"),
        (lambda: bit_conv.conv(x, kernel, padding="full"), "one of same, valid"),
        (lambda: bit_conv.conv(x, kernel, fill="two"), "one of zero, one"),
        (lambda: bit_conv.conv(x, kernel, strides=0), "an integer >= 1"),
    ):
        with pytest.raises(UsageError, match=message):
            call()
