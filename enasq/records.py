"""One record for each convolution of a network, without building it."""

from collections.abc import Iterator
from typing import NamedTuple

from enasq import cell as cells
from enasq.cell import Architecture
from enasq.plan import Cell, Network, Plan, plan
from enasq.policy import Precision, QuantPolicy
from enasq.quantization import Quantizer, bits_of, levels

KERNELS = {cells.CONV_3: 3, cells.CONV_5: 5}
"""Window of an operation that convolves."""


class Record(NamedTuple):
    """What one convolution holds and does.

    Attributes:
        name: where it is.
        quantizer: name of its weights' quantiser.
        kind: conv, depthwise, pointwise (of a separable convolution) or dense.
        kernel: its window's height and width.
        inputs, outputs: channels.
        size: height and width of its output.
        parameters: weights, of all rows of a shared bank.
        macs: multiply-accumulates for one image, of one row of a bank.
        weight_bits: bits of a weight.
        activation_bits: bits of what it reads.
        norm_channels: channels of the batch normalisation after it, 0 if there is none.
    """

    name: str
    quantizer: str
    kind: str
    kernel: int
    inputs: int
    outputs: int
    size: int
    parameters: int
    macs: int
    weight_bits: int
    activation_bits: int
    norm_channels: int


def records(
    network: Network,
    policy: QuantPolicy,
    arc: Architecture | None = None,
    *,
    aux_head: bool = False,
) -> list[Record]:
    """Return the records of a network, in the order of its layers.

    Args:
        network: its settings.
        policy: its quantisers.
        arc: the architecture. Without one, those of a search network are its shared
            banks, with the precision of plain operations; with one, what it runs.
        aux_head: add those of the auxiliary head, which only training needs.
    """
    whole = plan(network, arc)
    found = [_stem(whole, policy)]
    for cell in whole.cells:
        found += _cell(cell, network, policy, arc)
    last = whole.cells[-1].channels
    found.append(_dense("classifier", policy.classifier, last, network.classes))
    if aux_head:
        found += _aux(whole, policy)
    return found


def sum_bits(kernel: int, precision: Precision) -> int:
    """Return the bits that hold any sum of a depthwise convolution.

    ceil(log2(2 k^2 A + 1)), with A the largest product of a weight's and an
    activation's code; 32 if one of them has none.

    Args:
        kernel: k.
        precision: the two quantisers.
    """
    weights = levels(precision.weights)
    activations = levels(precision.activations, role="activations")
    if not len(weights) or not len(activations):
        return 32
    largest = max(map(abs, (weights[0], weights[-1])))
    largest *= max(map(abs, (activations[0], activations[-1])))
    return min((2 * kernel**2 * largest).bit_length(), 32)


def _conv(
    name: str,
    quantizer: Quantizer,
    shape: tuple[int, int, int],
    size: int,
    reads: int,
    *,
    kind: str = "conv",
    rows: int = 1,
    norm: int | None = None,
) -> Record:
    """Return a record.

    Args:
        name: where it is.
        quantizer: of its weights.
        shape: kernel, inputs and outputs.
        size: of the output.
        reads: bits of what it reads.
        kind: of convolution.
        rows: of the bank that its weights are a row of.
        norm: channels that are normalised; by default all.
    """
    kernel, inputs, outputs = shape
    weights = kernel**2 * outputs * (1 if kind == "depthwise" else inputs)
    bits = bits_of(quantizer)
    norm = rows * outputs if norm is None else norm
    return Record(
        name,
        quantizer.name,
        kind,
        *shape,
        size,
        rows * weights,
        weights * size**2,
        bits,
        reads,
        norm,
    )


def _activation_bits(precision: Precision) -> int:
    return bits_of(precision.activations, role="activations")


def _stem(whole: Plan, policy: QuantPolicy) -> Record:
    network = whole.network
    shape = 3, network.channels, whole.stem
    # A pixel has 8 bits, however it is normalised.
    reads = policy.image_bits or (32 if policy.stem.name == "float" else 8)
    return _conv("stem", policy.stem, shape, network.size, reads)


def _dense(name: str, quantizer: Quantizer, inputs: int, outputs: int) -> Record:
    shape = 1, inputs, outputs
    return _conv(name, quantizer, shape, 1, 32, kind="dense", norm=0)


def _reduction(
    name: str,
    precision: Precision,
    channels: tuple[int, int],
    size: int,
    *,
    reads: int,
    rows: int = 1,
) -> Iterator[Record]:
    """Yield the two paths of a factorised reduction; `channels` are inputs, outputs."""
    inputs, outputs = channels
    for path, half in enumerate((outputs // 2, outputs - outputs // 2), 1):
        shape = 1, inputs, half
        place = f"{name}/path {path}"
        yield _conv(place, precision.weights, shape, size, reads, rows=rows)


def _cell(
    cell: Cell, network: Network, policy: QuantPolicy, arc: Architecture | None
) -> Iterator[Record]:
    name, own = f"cell {cell.number}", policy.of_cell(cell.number)
    reads, filters = _activation_bits(own), cell.filters
    raw = reads if policy.quantize_inputs else 32
    if cell.entry is not None:
        shape = cell.entry[0], filters
        yield from _reduction(f"{name}/entry", own, shape, cell.size, reads=raw)
    for number, source in enumerate(cell.sources):
        place, shape = f"{name}/input {number}", (source.channels, filters)
        if source.fit == "reduce":
            yield from _reduction(place, own, shape, cell.size, reads=reads)
        elif source.fit == "project":
            yield _conv(place, own.weights, (1, *shape), cell.size, reads)
    if cell.base:
        yield _conv(
            f"{name}/base", own.weights, (1, filters, filters), cell.size, reads
        )
    if arc is None:
        yield from _banks(cell, network, policy)
        loose = None
    else:
        code = arc[int(cell.reduction)]
        yield from _branches(cell, policy, code)
        loose = [int(node) for node in cells.loose_ends(code).nonzero()[0]]
    yield from _output(cell, network, own, loose, raw=raw)


def _branches(cell: Cell, policy: QuantPolicy, code) -> Iterator[Record]:
    """Yield the convolutions of a cell's operations."""
    for node, target, branch, op in cells.edges(code).tolist():
        place = f"cell {cell.number}/block {target - 1}/{'xy'[branch]}"
        kind, choice = cells.split_op(op)
        own = policy.of_branch(cell.number, branch, choice)
        strided = cell.stride == 2 and node < 2
        if kind in KERNELS:
            yield from _separable(place, cell, policy, own, KERNELS[kind])
        elif kind == cells.IDENTITY and strided:
            reads = _activation_bits(own) if policy.quantize_inputs else 32
            shape, size = (cell.filters, cell.filters), cell.output_size
            yield from _reduction(place, own, shape, size, reads=reads)


def _banks(cell: Cell, network: Network, policy: QuantPolicy) -> Iterator[Record]:
    """Yield the shared weights of all operations: a row for each node they may read."""
    for block in range(network.blocks):
        for branch in range(2):
            place = f"cell {cell.number}/block {block + 1}/{'xy'[branch]}"
            own = policy.of_cell(cell.number)
            for kernel in KERNELS.values():
                yield from _separable(
                    f"{place}/conv {kernel}x{kernel}",
                    cell,
                    policy,
                    own,
                    kernel,
                    rows=block + 2,
                )
            if cell.stride == 2:
                reads = _activation_bits(own) if policy.quantize_inputs else 32
                yield from _reduction(
                    f"{place}/identity",
                    own,
                    (cell.filters, cell.filters),
                    cell.output_size,
                    reads=reads,
                    rows=2,
                )


def _separable(
    place: str,
    cell: Cell,
    policy: QuantPolicy,
    own: Precision,
    kernel: int,
    *,
    rows: int = 1,
) -> Iterator[Record]:
    """Yield two separable convolutions in a row."""
    filters, size, reads = cell.filters, cell.output_size, _activation_bits(own)
    inner = reads if policy.inner_activation else sum_bits(kernel, own)
    norm = rows * filters if policy.inner_activation else 0
    for stack in range(2):
        name = f"{place}/stack {stack}"
        yield _conv(
            f"{name}/depthwise",
            own.weights,
            (kernel, filters, filters),
            size,
            reads,
            kind="depthwise",
            rows=rows,
            norm=norm,
        )
        shape = 1, filters, filters
        yield _conv(
            f"{name}/pointwise",
            own.weights,
            shape,
            size,
            inner,
            kind="pointwise",
            rows=rows,
        )


def _output(
    cell: Cell, network: Network, own: Precision, loose: list[int] | None, *, raw: int
) -> Iterator[Record]:
    """Yield what makes the output of the loose ends; None stands for all nodes."""
    filters, size = cell.filters, cell.output_size
    for node in range(2) if loose is None else loose:
        if cell.node_size(node) != size:
            place, shape = f"cell {cell.number}/loose end {node}", (filters, filters)
            yield from _reduction(place, own, shape, size, reads=raw)
    if network.kind == "fixed":
        return
    place, reads = f"cell {cell.number}/output", _activation_bits(own)
    if loose is None:
        shape, rows = (1, filters, filters), network.blocks + 2
    else:
        shape, rows = (1, len(loose) * filters, filters), 1
    yield _conv(place, own.weights, shape, size, reads, rows=rows, norm=filters)


def _aux(whole: Plan, policy: QuantPolicy) -> Iterator[Record]:
    aux, own = whole.aux, policy.aux_head
    if aux is None:
        return
    reads = _activation_bits(own)
    yield _conv("aux head/1x1", own.weights, (1, aux.channels, 128), aux.size, reads)
    shape = aux.size, 128, 768
    yield _conv("aux head/window", own.weights, shape, aux.size, reads)
    classes = whole.network.classes
    yield _dense("aux head/classifier", policy.classifier, 768, classes)
