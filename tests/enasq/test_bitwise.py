"""Packed products are those of integer NumPy, whatever the kinds and the backend."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import numpy as jnp

from enasq import bitwise, packing, products
from enasq.packing import Codes, Packed
from shared.errors import UsageError
from tests.enasq.codes import KINDS, draw, kinds, seeds
from tests.quick import quick


@settings(max_examples=6, deadline=None, derandomize=True)
@given(seeds, kinds, st.sampled_from((1, 31, 32, 33, 70)))
def test_codes_survive_packing_and_tails_are_zero(seed, kind, length):
    codes = draw(seed, *kind, (2, 3, length))

    def run(codes):
        packed = packing.pack(codes, *kind)
        bits = jnp.stack(packing.bit_planes(codes, *kind))
        return packed, packing.unpack(packed), bits

    packed, back, first = quick(run)(codes)
    np.testing.assert_array_equal(back, codes)
    bits = np.unpackbits(np.asarray(packed.planes).view(np.uint8), bitorder="little")
    bits = bits.reshape(*packed.planes.shape[:-1], -1)
    assert not bits[..., length:].any()
    # The least bit of the first word is the first code.
    np.testing.assert_array_equal(bits[..., :length], first)


def test_all_kinds_multiply_exactly():
    pairs = list(itertools.product(range(len(KINDS)), repeat=2))
    left = [draw(i, *kind, (3, 45)) for i, kind in enumerate(KINDS)]
    right = [draw(9 + i, *kind, (45, 5)) for i, kind in enumerate(KINDS)]

    def run(left, right, how):
        rows = [packing.pack(x, *k) for x, k in zip(left, KINDS, strict=True)]
        columns = [
            packing.pack_columns(x, *k) for x, k in zip(right, KINDS, strict=True)
        ]
        return [products.matmul(rows[i], columns[j], how=how) for i, j in pairs]

    for how in ("words", "broadcast", "int8", "float"):
        found = quick(lambda a, b, how=how: run(a, b, how))(left, right)
        for (i, j), ours in zip(pairs, found, strict=True):
            expected = left[i] @ right[j]
            np.testing.assert_array_equal(
                ours, expected, f"{KINDS[i]} {KINDS[j]} {how}"
            )


@settings(max_examples=4, deadline=None, derandomize=True)
@given(seeds, st.sampled_from(((2, 1), (67 * 32, 3), (130 * 32 + 5, 2))), kinds)
def test_products_of_any_length_loop_over_their_words(seed, size, kind):
    length, rows = size
    a, b = draw(seed, "binary", 1, (rows, length)), draw(seed, *kind, (length, 4))
    run = quick(
        lambda a, b: products.matmul(
            packing.pack(a, "binary"), packing.pack_columns(b, *kind), how="words"
        )
    )
    np.testing.assert_array_equal(run(a, b), a @ b)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_that_are_kept_apart_are_the_same_columns(kind):
    count = 2 * bitwise.CLASH
    a, b = draw(1, "binary", 1, (3, 65)), draw(2, *kind, (65, count))
    rows = packing.pack(jnp.asarray(a), "binary")
    columns = packing.pack_columns(jnp.asarray(b), *kind)
    apart = quick(bitwise._apart)(columns.planes)
    np.testing.assert_array_equal(apart, columns.planes)
    found = quick(lambda a, b: products.matmul(a, b, how="words"))(rows, columns)
    np.testing.assert_array_equal(found, a @ b)


def test_images_of_eight_bits_multiply_as_bytes():
    a, b = draw(0, "unsigned", 8, (6, 40)), draw(1, "signed", 8, (40, 3))
    image = lambda x: Codes(x, "unsigned", 8)
    weight = lambda x: Codes(x, "signed", 8)
    run = quick(
        lambda a, b: (
            products.matmul(image(a), weight(b), how="int8"),
            products.matmul(weight(b.T), image(a.T), how="int8"),
        )
    )
    ours = run(a, b)
    np.testing.assert_array_equal(ours[0], a @ b)
    np.testing.assert_array_equal(ours[1], b.T @ a.T)


def test_leading_axes_and_unpacked_operands():
    a, b = draw(0, "binary", 1, (2, 3, 50)), draw(1, "ternary", 1, (50, 4))
    for how in ("auto", "words", "float"):
        run = quick(
            lambda a, b, how=how: products.matmul(
                Codes(a, "binary"), packing.pack_columns(b, "ternary"), how=how
            )
        )
        ours = run(a.astype(np.float32), b)
        assert ours.dtype == jnp.int32
        np.testing.assert_array_equal(ours, a @ b)


def test_sums_that_float32_would_round_stay_exact():
    length = 2**11 + 1
    a = np.full((1, length), 127, np.int32)
    b = np.full((length, 1), 127, np.int32)
    assert (a @ b)[0, 0] > products.EXACT and (a @ b)[0, 0] % 2
    code = lambda x: Codes(x, "signed", 8)
    run = quick(lambda a, b: products.matmul(code(a), code(b), how="float"))
    np.testing.assert_array_equal(run(a, b), a @ b)


def test_wide_codes_are_multiplied_as_numbers_with_a_notice():
    a, b = draw(0, "signed", 12, (2, 20)), draw(1, "ternary", 1, (20, 3))
    x, y = Codes(jnp.asarray(a), "signed", 12), Codes(jnp.asarray(b), "ternary")
    for how in ("words", "auto"):
        with pytest.warns(UserWarning, match="codes of 12 bits are multiplied as num"):
            np.testing.assert_array_equal(products.matmul(x, y, how=how), a @ b)
    np.testing.assert_array_equal(products.matmul(x, y, how="float"), a @ b)


def test_no_backend_multiplies_what_are_no_codes():
    fine, wrong = codes(2), Codes(jnp.full((2, 2), 299), "ternary")
    large = Codes(jnp.full((2, 2), 200), "signed", 8)
    for how in products.HOW:
        for pair in ((fine, wrong), (wrong, fine)):
            with pytest.raises(UsageError, match="ternary codes: got 299"):
                products.matmul(*pair, how=how)
        with pytest.raises(UsageError, match="from -128 to 127"):
            products.matmul(fine, large, how=how)
        with pytest.raises(UsageError, match="Did you mean 'ternary'"):
            products.matmul(fine, codes(2, "trinary"), how=how)
        with pytest.raises(UsageError, match="from 1 to 16"):
            products.matmul(fine, codes(2, "signed", 17), how=how)


def codes(length, kind="binary", bits=1):
    return Codes(jnp.ones((2, length)), kind, bits)


@pytest.mark.parametrize(
    ("call", "words"),
    (
        (lambda: packing.pack(jnp.ones(4), "trinary"), "Did you mean 'ternary'"),
        (lambda: packing.pack(jnp.ones(4), "signed", 9), "an integer from 1 to 8"),
        (lambda: packing.pack(jnp.ones(4), "signed", 0), "an integer from 1 to 8"),
        (lambda: packing.pack(jnp.zeros(4), "binary"), "binary codes: got 0"),
        (lambda: packing.pack(jnp.full(4, 4), "signed", 3), "from -4 to 3"),
        (lambda: packing.pack(jnp.full(4, 0.5), "ternary"), "from -1 to 1"),
        (lambda: products.matmul(codes(3), codes(5)), "3 rows, as many as a has"),
        (
            lambda: products.matmul(codes(2, "signed", 16), codes(2, "signed", 16)),
            "sums below 2\\^31",
        ),
        (
            lambda: products.matmul(codes(2), codes(2), how="float64"),
            "Did you mean 'float'",
        ),
    ),
)
def test_bad_input_is_told_in_one_line(call, words):
    with pytest.raises(UsageError, match=words):
        call()


def test_the_rule_takes_floats_only_where_bits_gain_nothing():
    rule = lambda *sizes, packed=False: products.fastest("cpu", *sizes, packed=packed)
    assert rule(512, 512, 512, 1) == "words"
    assert rule(1, 1024, 1024, 1) == "words"
    assert rule(32768, 16, 16, 1) == "float"
    assert rule(32768, 16, 16, 1, packed=True) == "words"
    assert rule(512, 512, 512, 16) == "int8"


def test_ternary_products_take_one_popcount_a_plane():
    planes = lambda k, b: jnp.zeros((packing.planes_of(k, b), 1, 1), jnp.uint32)
    kinds = {k: Packed(planes(k, b), k, 4) for k, b in KINDS}
    count = lambda a, b: len(bitwise.plan(kinds[a], kinds[b]).pairs)
    assert count("binary", "binary") == count("binary", "ternary") == 1
    assert count("ternary", "ternary") == 2
    assert count("signed", "ternary") == count("signed", "binary") == 3
