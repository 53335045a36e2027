"""Architectures: text, validity, graphs, symmetry."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import numpy as jnp

from enasq import cell
from shared.errors import UsageError

PUBLISHED = (
    "1 2 1 3 0 1 0 4 1 1 1 1 0 1 0 1 1 0 0 1 0 1 0 4 1 0 2 0 0 3 1 1 0 0 0 0 4 1 1 0"
)
LOGGED = """[0 2 1 4 1 3 0 1 1 0 1 0 1 2 0 4 0 0 0 1]
[1 3 1 4 0 1 1 1 1 2 1 4 3 2 0 2 1 1 0 3]
"""


@st.composite
def architectures(draw, ops=5):
    blocks = draw(st.integers(1, 5))
    number = lambda high: draw(st.integers(0, high - 1))
    codes = [
        [number(b + 2), number(ops), number(b + 2), number(ops)]
        for _, b in itertools.product(range(2), range(blocks))
    ]
    return np.array(codes, np.int32).reshape(2, blocks, 4)


@settings(max_examples=30, deadline=None)
@given(architectures(ops=15))
def test_text_and_back(arc):
    for bar in (False, True):
        text = cell.render(arc, bar=bar)
        np.testing.assert_array_equal(cell.parse(text, ops=15), arc)
    commas = ",".join(map(str, arc.reshape(-1).tolist()))
    np.testing.assert_array_equal(cell.parse(f" {commas}\n", ops=15), arc)


def test_published_and_logged_architectures():
    arc = cell.parse(PUBLISHED, blocks=5)
    assert arc.shape == (2, 5, 4) and arc.dtype == np.int32
    assert np.nonzero(cell.loose_ends(arc[0]))[0].tolist() == [2, 3, 4, 5, 6]
    assert np.nonzero(cell.loose_ends(arc[1]))[0].tolist() == [3, 5, 6]
    assert cell.edges(arc[1])[:3].tolist() == [[0, 2, 0, 1], [0, 2, 1, 4], [1, 3, 0, 0]]
    assert cell.parse(LOGGED)[1, 3].tolist() == [3, 2, 0, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    (
        (PUBLISHED.replace("1 2 1 3", "2 2 1 3", 1), r"position 1 \(index_x of block"),
        (PUBLISHED.replace("1 2 1 3", "1 2 1 5", 1), "position 4 .*got 5.*0 to 4"),
        (PUBLISHED[:-1] + "-1", "position 40 .*op_y of block 5 of the reduction cell"),
        (PUBLISHED[:-1] + "9" * 30, "position 40 .*0 to 4"),
        (PUBLISHED[:-2], "got '39 numbers'"),
        ("", "integer"),
        ("0 1 0 x 0 1 0 1", "position 4: got 'x'"),
        ("0 1 0 1 0 1 0 1", "8 numbers.*40 for 5 blocks"),
    ),
)
def test_wrong_architectures_say_where(text, message):
    with pytest.raises(UsageError, match=message):
        cell.parse(text, blocks=5 if "8 numbers" in message else None)


@settings(max_examples=30, deadline=None)
@given(architectures())
def test_graphs_agree_with_a_walk(arc):
    for code in arc:
        read = [0] * (len(code) + 2)
        for x, _, y, _ in code.tolist():
            read[x] += 1
            read[y] += 1
        np.testing.assert_array_equal(cell.use_counts(code), read)
        # Whatever nothing reads is an output, so everything reaches the output.
        assert cell.reaching(code).all()


def test_decoding_is_the_same_when_compiled():
    decode = jax.jit(lambda code: (cell.use_counts(code), cell.loose_ends(code)))
    for code in cell.parse(PUBLISHED):
        counts, loose = decode(jnp.asarray(code))
        np.testing.assert_array_equal(counts, cell.use_counts(code))
        np.testing.assert_array_equal(loose, cell.loose_ends(code))


@settings(max_examples=40, deadline=None)
@given(architectures(), st.randoms(use_true_random=False))
def test_canonical_form_ignores_names(arc, random):
    other = np.stack([_renamed(code, random) for code in arc])
    cell.check(other)
    np.testing.assert_array_equal(cell.canonical(arc), cell.canonical(other))
    again = cell.canonical(cell.canonical(arc))
    np.testing.assert_array_equal(again, cell.canonical(arc))


def _renamed(code, random):
    """Return the code with branches exchanged and blocks in another valid order."""
    names, done = {0: 0, 1: 1}, []
    while len(done) < len(code):
        ready = [
            b
            for b in range(len(code))
            if b + 2 not in names and {code[b, 0], code[b, 2]} <= set(names)
        ]
        block = random.choice(ready)
        x, op_x, y, op_y = code[block].tolist()
        pair = [[names[x], op_x], [names[y], op_y]]
        random.shuffle(pair)
        done.append([*pair[0], *pair[1]])
        names[block + 2] = len(names)
    return np.array(done, np.int32)


def test_canonical_forms_of_small_cells_are_as_many_as_there_are():
    """Two blocks: counted by brute force over all orders and exchanges."""
    codes = list(_all_cells(2, 2))
    assert len(codes) == cell.count(2, ops=2)
    forms = {cell.canonical(np.stack([c, c]))[0].tobytes() for c in codes}
    groups = {min(o.tobytes() for o in _orders(c)) for c in codes}
    assert len(forms) == len(groups) < cell.count(2, ops=2, symmetric=True)


def _all_cells(blocks, ops):
    ranges = [r for b in range(blocks) for r in (range(b + 2), range(ops)) * 2]
    for values in itertools.product(*ranges):
        yield np.array(values, np.int32).reshape(blocks, 4)


def _orders(code):
    """Yield every code of two blocks that means the same cell."""
    swap = [2, 3, 0, 1]
    swapped = code.copy()
    if code[1, [0, 2]].max() < 2:
        swapped = swapped[::-1]
    for one in (code, swapped):
        for first, second in itertools.product((False, True), repeat=2):
            other = one.copy()
            other[0] = other[0, swap] if first else other[0]
            other[1] = other[1, swap] if second else other[1]
            yield other


def test_counts():
    assert cell.count(5) == (720 * 3125) ** 2
    assert cell.count(5) == pytest.approx(5.06e12, rel=1e-3)


def test_random_architectures_are_valid_and_cover_every_choice(key):
    draw = jax.jit(jax.vmap(lambda key: cell.random(key, 3, ops=10)))
    drawn = np.asarray(draw(jax.random.split(key, 400)))
    for arc in drawn[:20]:
        cell.check(arc, ops=10)
    for block in range(3):
        for field, high in enumerate((block + 2, 10, block + 2, 10)):
            counts = np.bincount(drawn[:, :, block, field].ravel(), minlength=high)
            assert len(counts) == high
            # Five standard deviations of a share of 800 draws.
            assert np.abs(counts / 800 - 1 / high).max() < 5 * (0.25 / 800) ** 0.5


def test_operations_may_carry_a_quantiser():
    assert cell.split_op(cell.CONV_5 + 5 * 2) == (cell.CONV_5, 2)
    with pytest.raises(UsageError, match="position 2"):
        cell.parse("0 10 0 0 0 0 0 0", ops=10)
