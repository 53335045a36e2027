"""Which quantiser each part of a network uses.

Presets by name, where k bits stand for 4 unless given:

| name | stem | cells |
|---|---|---|
| reference | k bits | the first k bits, the rest ternary |
| published | k bits | as reference, but second branches of the first ternary |
| all_binary, all_ternary, all_kbit | as the cells | all the same |
| float | full precision | full precision, with rectifiers for activations |
| deployable | k bits | binary; also `_ternary` and `_kbit` |

Deployable networks read images of 8 bits, and have an activation between the stages of
separable convolutions and before every convolution: all of them can run on integers.
In the others some convolutions read floats.
"""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass

from enasq.packing import MOST_BITS
from enasq.quantization import QUANTIZERS, Quantizer
from shared.errors import UsageError, check_choice, check_range

SIGNS = ("binary", "stochastic_binary", "xnor", "approx_sign", "swish_sign")
"""Quantisers whose activations are signs, and their weights but for a scale."""


@dataclass(frozen=True)
class Precision:
    """The quantisers of a convolution: of its weights, and of what it reads."""

    weights: Quantizer
    activations: Quantizer


@dataclass(frozen=True)
class QuantPolicy:
    """The quantisers of a network.

    Attributes:
        cells: of cell 0, 1, ...; the last entry serves all further cells too.
        stem: of the first convolution's weights.
        head: of the activations that are averaged and classified.
        aux_head: of the auxiliary head.
        classifier: of the last matrix.
        second_branch: of the second branches of cell 0 in fixed networks; None follows
            `cells`.
        choices: what an architecture may choose from: operation id `op + 5 q` takes
            entry q. If empty, cells decide and q must be 0.
        image_bits: fixed-point bits of a pixel; 0 feeds normalised floats.
        inner_activation: normalise and quantise between the depthwise and the pointwise
            stage of separable convolutions.
        quantize_inputs: quantise what enters factorised reductions too, where the
            published networks have no activation.
    """

    cells: tuple[Precision, ...]
    stem: Quantizer
    head: Quantizer
    aux_head: Precision
    classifier: Quantizer = Quantizer("float")
    second_branch: Precision | None = None
    choices: tuple[Precision, ...] = ()
    image_bits: int = 0
    inner_activation: bool = False
    quantize_inputs: bool = False

    def __post_init__(self):
        if not self.cells:
            raise UsageError("cells", self.cells, "one or more quantisers")
        check_range("image_bits", self.image_bits, low=0, high=16)

    def of_cell(self, number: int) -> Precision:
        """Return the quantisers of a cell's own convolutions."""
        return self.cells[min(number, len(self.cells) - 1)]

    def of_branch(self, number: int, branch: int, choice: int) -> Precision:
        """Return the quantisers of an operation.

        Args:
            number: of the cell.
            branch: 0 for x, 1 for y.
            choice: q of the operation id.
        """
        if self.choices and choice < len(self.choices):
            return self.choices[choice]
        if choice:
            allowed = f"0 to {max(len(self.choices), 1) - 1}"
            raise UsageError("choice of a quantiser", choice, allowed)
        if number == 0 and branch == 1 and self.second_branch is not None:
            return self.second_branch
        return self.of_cell(number)


def precision(name: str) -> Precision:
    """Return one quantiser for weights and activations.

    Args:
        name: of a quantiser that is meant for both, or "4-bit", where any number of
            bits from 1 to 16 may stand in place of 4.

    Raises:
        UsageError: for other names.
    """
    if match := re.fullmatch(r"(\d+)-bit", name):
        quantizer = Quantizer("kbit", bits=int(match[1]))
    else:
        both = [key for key, rule in QUANTIZERS.items() if rule.activations is not None]
        both.remove("stochastic_binary")
        if name == "stochastic_binary":
            hint = "Activations in a network have no key, so it would never draw."
            raise UsageError("precision", name, "'binary'", hint)
        check_choice("precision", name, (*both, "4-bit"))
        quantizer = Quantizer(name)
    return Precision(quantizer, quantizer)


def uniform(name: str, *, stem: str | None = None) -> QuantPolicy:
    """Return the policy of one precision everywhere but in the classifier.

    Args:
        name: see `precision`.
        stem: another one for the stem.
    """
    everywhere = precision(name)
    first = precision(stem or name)
    head = everywhere.activations
    return QuantPolicy((everywhere,), first.weights, head, everywhere)


def deployable(name: str, *, stem: str = "4-bit") -> QuantPolicy:
    """Return the policy of one precision whose every convolution reads integers."""
    return dataclasses.replace(
        uniform(name, stem=stem),
        image_bits=8,
        inner_activation=True,
        quantize_inputs=True,
    )


def obstacle(policy: QuantPolicy) -> str | None:
    """Return why networks of a policy cannot run on integers alone, None if they can.

    They need images of fixed point, quantised inputs of every convolution, and
    quantisers whose codes can be packed.
    """
    if not 1 <= policy.image_bits <= MOST_BITS:
        return f"image_bits = {policy.image_bits}, not 1 to {MOST_BITS}"
    if not policy.inner_activation or not policy.quantize_inputs:
        name = "quantize_inputs" if policy.inner_activation else "inner_activation"
        return f"{name} = False, so convolutions read sums"
    pairs = [*policy.cells, *policy.choices]
    pairs += [policy.second_branch] if policy.second_branch else []
    used = [
        policy.stem,
        policy.head,
        *(q for p in pairs for q in (p.weights, p.activations)),
    ]
    for quantizer in used:
        if kind_of(quantizer) is None:
            bits = "" if quantizer.bits is None else f" of {quantizer.bits} bits"
            return f"quantiser {quantizer.name!r}{bits}, whose codes are not packed"
    return None


def kind_of(quantizer: Quantizer) -> tuple[str, int] | None:
    """Return kind and bits of the codes that are packed, None if they cannot be."""
    if quantizer.name in ("binary", "ternary"):
        return quantizer.name, 1
    if quantizer.name in SIGNS and quantizer.scale == "none":
        return "binary", 1
    packs = quantizer.name == "kbit" and quantizer.scale == "none"
    if packs and quantizer.bits is not None and quantizer.bits <= MOST_BITS:
        return "signed", quantizer.bits
    return None


def activation_kind(quantizer: Quantizer) -> tuple[str, int]:
    """Return kind and bits of what an activation gives in float32.

    Kinds are those of codes, of any width, or "rectified". Activations have no scales.

    Raises:
        UsageError: for quantisers that learn, and those of other levels.
    """
    if quantizer.name == "float":
        return "rectified", 32
    if quantizer.name == "kbit":
        return "signed", quantizer.bits or 1
    if quantizer.name in SIGNS:
        return "binary", 1
    kind = kind_of(quantizer)
    if kind is None:
        names = ", ".join(("float", "ternary", "kbit", *SIGNS))
        hint = "Networks with others cannot be written to files."
        raise UsageError("activations", quantizer.name, f"one of {names}", hint)
    return kind


def reference(bits: int = 4, *, published: bool = False) -> QuantPolicy:
    """Return the mixed policy: k bits in the stem and in cell 0, ternary afterwards.

    Args:
        bits: k.
        published: keep second branches of cell 0 ternary.
    """
    first, rest = precision(f"{bits}-bit"), precision("ternary")
    return QuantPolicy(
        (first, rest),
        first.weights,
        rest.activations,
        rest,
        second_branch=rest if published else None,
    )


PRESETS: dict[str, Callable[[int], QuantPolicy]] = {
    "deployable": lambda bits: deployable("binary", stem=f"{bits}-bit"),
    "deployable_ternary": lambda bits: deployable("ternary", stem=f"{bits}-bit"),
    "deployable_kbit": lambda bits: deployable(f"{bits}-bit", stem=f"{bits}-bit"),
    "reference": lambda bits: reference(bits),
    "published": lambda bits: reference(bits, published=True),
    "all_binary": lambda bits: uniform("binary"),
    "all_ternary": lambda bits: uniform("ternary"),
    "all_kbit": lambda bits: uniform(f"{bits}-bit"),
    "float": lambda bits: uniform("float"),
}
"""Policies by name, as functions of k."""


def preset(name: str, *, bits: int = 4, choices: tuple[str, ...] = ()) -> QuantPolicy:
    """Return a policy by name.

    Args:
        name: key of `PRESETS`.
        bits: k, where there are quantisers of k bits.
        choices: precisions that an architecture may choose from.

    Raises:
        UsageError: for an unknown name, or bits outside 1..16.
    """
    check_choice("policy", name, PRESETS)
    check_range("bits", bits, low=1, high=16)
    policy = PRESETS[name](bits)
    return dataclasses.replace(policy, choices=tuple(map(precision, choices)))


def with_range(policy: QuantPolicy, high: float | int | str) -> QuantPolicy:
    """Return a policy whose weights have another range H, where quantisers have one."""

    def changed(quantizer: Quantizer) -> Quantizer:
        if "high" not in QUANTIZERS[quantizer.name].settings:
            return quantizer
        return dataclasses.replace(quantizer, high=high)

    def both(own: Precision) -> Precision:
        return Precision(changed(own.weights), own.activations)

    second = policy.second_branch
    return dataclasses.replace(
        policy,
        cells=tuple(map(both, policy.cells)),
        stem=changed(policy.stem),
        aux_head=both(policy.aux_head),
        classifier=changed(policy.classifier),
        second_branch=None if second is None else both(second),
        choices=tuple(map(both, policy.choices)),
    )
