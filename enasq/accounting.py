"""What a network costs: parameters, stored bits, operations, memory of activations.

    bit-operations = sum of multiply-accumulates x weight bits x activation bits

without the classifier; stored bits are those of the weights, 32 a number of the
classifier, and 64 a normalised channel for its folded scale and shift. Pools, sums and
normalisations are counted apart from multiply-accumulates.
"""

import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from enasq import cell as cells
from enasq.cell import Architecture
from enasq.plan import Cell, Network, Plan, plan
from enasq.policy import QuantPolicy
from enasq.records import Record, records
from shared import disk

__all__ = ["Record", "Totals", "account", "records", "totals"]


class Totals(NamedTuple):
    """Sums over records.

    Attributes:
        parameters: trained numbers, with scales and offsets of normalisations.
        weights: those of convolutions and the classifier.
        norm_channels: normalised channels.
        model_bits: stored weights and folded normalisations.
        float_bits: of the same network in 32 bits, normalisations not folded.
        macs: multiply-accumulates for one image, with the classifier's.
        bit_operations: without the classifier's.
        depthwise_macs, pointwise_macs: of separable convolutions.
        dense_macs: of classifiers.
        float_input_macs: of convolutions that read floats, classifiers aside.
        low_bit_macs: of ordinary convolutions with weights and activations of at most
            2 bits: bit operations alone run them.
    """

    parameters: int
    weights: int
    norm_channels: int
    model_bits: int
    float_bits: int
    macs: int
    bit_operations: int
    depthwise_macs: int
    pointwise_macs: int
    dense_macs: int
    float_input_macs: int
    low_bit_macs: int

    @property
    def model_bytes(self) -> int:
        """Stored bytes, rounded up."""
        return -(-self.model_bits // 8)


class Others(NamedTuple):
    """Operations for one image that are no multiply-accumulates.

    Attributes:
        pool_reads: values that pools read, 9 for each they give.
        additions: of node sums.
        normalizations: values that are scaled and shifted.
    """

    pool_reads: int
    additions: int
    normalizations: int


class Account(NamedTuple):
    """All there is to say about what a network costs.

    Attributes:
        records: of its convolutions.
        totals: their sums.
        others: what else it does.
        peak_bits: largest memory of activations, see `peak_bits`.
    """

    records: list[Record]
    totals: Totals
    others: Others
    peak_bits: int


def account(network: Network, policy: QuantPolicy, arc: Architecture) -> Account:
    """Return what an architecture costs.

    Args:
        network: where it stands; of a search network, what one architecture runs.
        policy: its quantisers.
        arc: the architecture.
    """
    found, whole = records(network, policy, arc), plan(network, arc)
    other = others(whole, found, arc)
    return Account(found, totals(found), other, peak_bits(whole, arc))


def totals(found: Sequence[Record]) -> Totals:
    """Sum records up."""
    inner = [record for record in found if record.kind != "dense"]
    weights = sum(record.parameters for record in found)
    norm_channels = sum(record.norm_channels for record in found)
    parameters = weights + 2 * norm_channels
    stored = sum(record.parameters * record.weight_bits for record in found)
    macs = lambda chosen: sum(record.macs for record in chosen)
    kind = lambda name: macs(record for record in found if record.kind == name)
    low = (r for r in inner if r.kind == "conv" and _low(r))
    return Totals(
        parameters=parameters,
        weights=weights,
        norm_channels=norm_channels,
        model_bits=stored + 64 * norm_channels,
        float_bits=32 * parameters,
        macs=macs(found),
        bit_operations=sum(r.macs * r.weight_bits * r.activation_bits for r in inner),
        depthwise_macs=kind("depthwise"),
        pointwise_macs=kind("pointwise"),
        dense_macs=kind("dense"),
        float_input_macs=macs(r for r in inner if r.activation_bits == 32),
        low_bit_macs=macs(low),
    )


def _low(record: Record) -> bool:
    return max(record.weight_bits, record.activation_bits) <= 2


def others(whole: Plan, found: Sequence[Record], arc: Architecture) -> Others:
    """Count pools, sums and normalisations.

    Args:
        whole: the network's plan.
        found: records of this architecture.
        arc: the architecture.
    """
    pools = additions = 0
    for cell in whole.cells:
        values = cell.filters * cell.output_size**2
        code = arc[int(cell.reduction)]
        additions += values * len(code)
        kinds = [cells.split_op(op)[0] for op in code[:, 1::2].ravel().tolist()]
        pools += sum(
            9 * values for kind in kinds if kind in (cells.AVG_POOL, cells.MAX_POOL)
        )
    normalised = sum(record.norm_channels * record.size**2 for record in found)
    return Others(pools, additions, normalised)


def peak_bits(whole: Plan, arc: Architecture, *, node_bits: int = 32) -> int:
    """Return the most bits that the tensors between operations take for one image.

    At each block these are the nodes that it or a later one reads or that are loose
    ends, its own node, and the output of the cell before, which the next one reads.
    What an operation holds inside is not counted.

    Args:
        whole: the network's plan.
        arc: the architecture.
        node_bits: of one value of a node, 32 for sums in floats.
    """
    network = whole.network
    start = whole.stem * network.size**2
    peak = start + network.channels * network.size**2
    for cell in whole.cells:
        kept = cell.sources[1].channels * cell.sources[1].size ** 2
        # An input that is taken as it comes is the tensor that is kept.
        shared = cell.sources[1].fit == "keep" and not cell.base
        peak = max(peak, _peak_of_cell(cell, arc[int(cell.reduction)], kept, shared))
    return peak * node_bits


def _peak_of_cell(cell: Cell, code, kept: int, shared: bool) -> int:
    values = lambda node: cell.filters * cell.node_size(node) ** 2
    loose, peak = cells.loose_ends(code), 0
    for block in range(len(code)):
        needed = set(code[block:, ::2].reshape(-1).tolist())
        live = [n for n in range(block + 2) if loose[n] or n in needed]
        own = sum(values(n) for n in live if not (shared and n == 1))
        peak = max(peak, kept + own + values(block + 2))
    return peak


COLUMNS = Record._fields


def to_json(found: Account) -> str:
    """Write an account as JSON, one object for each record."""
    data: dict[str, Any] = {
        "totals": {**found.totals._asdict(), "model_bytes": found.totals.model_bytes},
        "others": found.others._asdict(),
        "peak_bits": found.peak_bits,
        "layers": [record._asdict() for record in found.records],
    }
    return disk.dumps(data, indent=2)


def to_csv(found: Account) -> str:
    """Write the records as a table of comma-separated values."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(found.records)
    return text.getvalue()


def to_text(found: Account) -> str:
    """Write the records as an aligned table with the totals below."""
    heads = [name.replace("_", " ") for name in COLUMNS]
    rows = [[_cell_text(value) for value in record] for record in found.records]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    words = {
        name
        for name, value in zip(COLUMNS, found.records[0], strict=True)
        if isinstance(value, str)
    }

    def line(cells_):
        parts = [
            text.ljust(width) if name in words else text.rjust(width)
            for name, text, width in zip(COLUMNS, cells_, widths, strict=True)
        ]
        return "  ".join(parts).rstrip()

    sums = found.totals
    ratio = sums.float_bits / sums.model_bits
    below = [
        f"{sums.parameters:,} parameters, {sums.norm_channels:,} normalised channels",
        f"{sums.model_bytes:,} bytes stored, {ratio:.1f} times less than in 32 bits",
        f"{sums.macs:,} multiply-accumulates, of which {sums.depthwise_macs:,} "
        f"depthwise and {sums.pointwise_macs:,} pointwise",
        f"{sums.bit_operations:,} bit-operations",
        f"{found.others.pool_reads:,} values read by pools, "
        f"{found.others.additions:,} added, "
        f"{found.others.normalizations:,} normalised",
        f"{-(-found.peak_bits // 8):,} bytes of activations at the peak",
    ]
    return "\n".join([line(heads), *map(line, rows), "", *below])


def _cell_text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
