"""Plans, policies and accounts."""

import csv
import io
import json

import numpy as np
import pytest

from enasq import accounting, cell
from enasq.plan import Network, plan
from enasq.policy import PRESETS, precision, preset
from enasq.records import records, sum_bits
from shared.errors import UsageError

PAPER = cell.parse(
    "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"
)
SMALL = cell.parse("0 0 1 2 1 4 2 1 0 4 0 3 2 0 0 4")


def test_published_sizes():
    network = Network("fixed", 15, 36)
    sums = accounting.totals(records(network, preset("published"), PAPER))
    assert sums.parameters == 7_914_420 and sums.norm_channels == 32_472
    assert sums.bit_operations == pytest.approx(4.962e9, rel=1e-3)
    assert sums.model_bytes == pytest.approx(2.280e6, rel=1e-3)
    assert sums.depthwise_macs == pytest.approx(62.04e6, rel=1e-3)
    banks = records(Network("search", 2, 20, 3, channels=1), preset("reference"))
    assert accounting.totals(banks).parameters == 5_201_380


@pytest.mark.parametrize(
    ("layers", "rule", "expected"),
    (
        (3, "quarter", (0, 1, 3)),
        (2, "quarter", (0, 1, 2)),
        (15, "quarter", (3, 7, 15)),
        (15, "third", (5, 11)),
        (4, (3, 2, 3), (2, 3)),
        (1, (), ()),
    ),
)
def test_positions_of_reductions(layers, rule, expected):
    assert Network(layers=layers, pool_positions=rule).reductions == expected


def test_search_and_fixed_networks_reduce_alike():
    for kind in ("search", "fixed"):
        whole = plan(Network(kind, 4, 6, 2, pool_positions=(1, 3)), SMALL)
        assert [c.filters for c in whole.cells] == [6, 12, 12, 24, 24, 24]
        assert [c.output_size for c in whole.cells] == [32, 16, 16, 8, 8, 8]
    # Loose ends of the normal cell: node 3; of the reduction cell: nodes 1 and 3.
    assert [c.channels for c in whole.cells] == [6, 24, 12, 48, 24, 24]
    first = plan(Network("search", 1, 6, 2, pool_positions=(1,))).cells[1]
    assert first.entry == (6, 32) and first.sources[0].fit == "reduce"


def test_what_runs_is_part_of_the_banks():
    network = Network("search", 3, 8, 2, pool_positions=(1,))
    policy = preset("all_binary")
    runs = {r.name: r for r in records(network, policy, SMALL)}
    whole = sum(r.parameters for r in records(network, policy))
    assert sum(r.parameters for r in runs.values()) < whole
    # Normal cell: conv 3x3 on x of block 1, conv 5x5 on y of block 2.
    assert runs["cell 0/block 1/x/stack 0/depthwise"].kernel == 3
    assert runs["cell 0/block 2/y/stack 1/depthwise"].kernel == 5
    assert not any("block 1/y" in name for name in runs)


def test_strides_inside_a_search_network():
    network = Network("search", 1, 8, 2, pool_positions=(1,), stride_inside=True)
    names = [r.name for r in records(network, preset("deployable"), SMALL)]
    # Identity with a stride, and the loose end of full size, are reduced.
    assert "cell 1/block 1/x/path 1" in names
    assert "cell 1/loose end 1/path 2" in names


def test_deployable_networks_read_integers_everywhere():
    network = Network("fixed", 4, 8, 2, pool_positions=(1, 3))
    for name in PRESETS:
        found = records(network, preset(name), SMALL)[:-1]
        floats = [r.name for r in found if r.activation_bits == 32]
        assert bool(floats) != name.startswith("deployable"), (name, floats)
    found = records(network, preset("deployable"), SMALL)
    pointwise = [r for r in found if r.kind == "pointwise"]
    assert pointwise and all(r.activation_bits == 1 for r in pointwise)
    assert all(r.norm_channels for r in found if r.kind == "depthwise")


def test_a_choice_of_the_architecture_decides_the_bits():
    arc = SMALL.copy()
    arc[0, 0, 1] += 5
    network = Network("fixed", 1, 8, 2, pool_positions=(1,))
    policy = preset("all_binary", choices=("binary", "4-bit"))
    found = {r.name: r for r in records(network, policy, arc)}
    assert found["cell 0/block 1/x/stack 0/depthwise"].weight_bits == 4
    assert found["cell 0/block 2/y/stack 0/depthwise"].weight_bits == 1
    with pytest.raises(UsageError, match="choice of a quantiser: got 1"):
        records(network, preset("all_binary"), arc)


@pytest.mark.parametrize("name", ("binary", "ternary", "2-bit", "4-bit", "8-bit"))
@pytest.mark.parametrize("kernel", (3, 5))
def test_sums_of_taps_fit_into_their_bits(name, kernel):
    own = precision(name)
    largest = 1 if "-" not in name else 4 ** (int(name[0]) - 1)
    values = 2 * kernel**2 * largest + 1
    assert 2 ** (sum_bits(kernel, own) - 1) < values <= 2 ** sum_bits(kernel, own)


def test_account_of_an_architecture_as_text_json_and_csv():
    network = Network("fixed", 1, 4, 2, size=8, channels=1, pool_positions=(1,))
    found = accounting.account(network, preset("all_ternary"), SMALL)
    rows = list(csv.DictReader(io.StringIO(accounting.to_csv(found))))
    assert sum(int(row["macs"]) for row in rows) == found.totals.macs
    data = json.loads(accounting.to_json(found))
    assert data["layers"][0]["name"] == "stem" and len(data["layers"]) == len(rows)
    assert data["totals"]["model_bytes"] == -(-found.totals.model_bits // 8)
    text = accounting.to_text(found).splitlines()
    assert len({len(line) for line in text[: len(rows) + 1]}) == 1
    assert f"{found.totals.bit_operations:,} bit-operations" in text
    # Block sums: two nodes in three cells, of 4, 8 and 8 filters.
    assert found.others.additions == 2 * (4 * 64 + 8 * 16 + 8 * 16)
    # An average and a maximum pool, of the normal and of the reduction cell.
    assert found.others.pool_reads == 9 * (4 * 64 + 8 * 16 + 8 * 16)


def test_peak_memory_of_a_chain_by_hand():
    # Block 1 reads nodes 0 and 1, block 2 reads block 1 only.
    chain = cell.parse("0 2 1 2 2 2 2 2 " * 2)
    network = Network("search", 0, 4, 2, size=8, channels=1, pool_positions=())
    whole = plan(network, chain)
    # First cell: the stem, 12 channels, is kept; nodes 0, 1 and 2 have 4.
    assert accounting.peak_bits(whole, chain) == 32 * 64 * (12 + 3 * 4)
    assert accounting.peak_bits(whole, chain, node_bits=16) == 16 * 64 * 24


def test_auxiliary_head():
    network = Network("fixed", 6, 16, channels=1, aux_head=True)
    assert plan(network, PAPER).aux._replace(channels=0) == (4, 0, 2, "valid")
    policy = preset("reference")
    more = records(network, policy, PAPER, aux_head=True)
    assert [r.name for r in more[-3:]] == [
        "aux head/1x1",
        "aux head/window",
        "aux head/classifier",
    ]
    assert more[-2].parameters == 2 * 2 * 128 * 768
    assert len(more) == len(records(network, policy, PAPER)) + 3


@pytest.mark.parametrize(
    ("make", "message"),
    (
        (lambda: Network(size=28, layers=6), "size: got 28.*pool_positions"),
        (lambda: Network(pool_positions=(9,)), "0 to 7"),
        (lambda: Network(pool_positions="half"), "quarter, third"),
        (lambda: Network("serach"), "Did you mean 'search'"),
        (lambda: plan(Network("fixed")), "architecture: got None"),
        (lambda: plan(Network("fixed"), SMALL), "2 blocks"),
        (lambda: preset("deploy"), "Did you mean 'deployable'"),
        (lambda: preset("all_kbit", bits=17), "bits: got 17"),
        (lambda: precision("trinary"), "Did you mean 'ternary'"),
        (lambda: precision("0-bit"), "bits"),
        (lambda: precision("ttq"), "xnor, approx_sign, swish_sign, ternary, kbit"),
        (lambda: precision("stochastic_binary"), "never draw"),
    ),
)
def test_wrong_settings_say_what_is_right(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_policies_are_static():
    assert hash(preset("deployable")) == hash(preset("deployable"))
    assert np.unique([hash(preset(name)) for name in PRESETS]).size == len(PRESETS)
