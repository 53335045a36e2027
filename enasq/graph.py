"""Networks as lists of steps, each of which reads values of earlier ones.

Step i gives value i. There are three forms of a network with the same steps: its plan
for integers with norms in float32 ("exact"), which is simulated; that with packed
kernels and integer norms ("packed"), which is stored and run; and one in float32
("float"), with norms folded into its kernels. The steps:

    image       bytes to fixed-point codes, or to floats
    activate    nodes to codes
    conv        sums of codes to a node, or to codes by thresholds
    halve       two 1x1 convolutions with stride 2, one shifted by one, to a node
    depthwise   sums of each channel, to codes
    add         the sum of two nodes
    average     a pool of 3x3, padding not counted
    largest     likewise
    join        nodes behind each other
    head        activation, sum over all positions, classifier
"""

from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]

FORMS = ("exact", "packed", "float")
STORED = ("packed", "float")
"""Forms that files hold."""

OPS = (
    *("image", "activate", "conv", "halve", "depthwise"),
    *("add", "average", "largest", "join", "head"),
)
"""What steps do."""


class Step(NamedTuple):
    """One step.

    Attributes:
        op: what it does.
        name: where it stands in the network.
        inputs: numbers of the values that it reads.
        options: what programs hold fixed; JSON can say it.
        arrays: weights and norms.
    """

    op: str
    name: str
    inputs: tuple[int, ...]
    options: dict[str, Any]
    arrays: Arrays


class Graph(NamedTuple):
    """A network.

    Attributes:
        form: one of `FORMS`.
        info: `size`, `channels`, `classes`, `labels` and what else is told of it.
        steps: in order; the last gives the logits.
    """

    form: str
    info: dict[str, Any]
    steps: tuple[Step, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.info["size"], self.info["size"], self.info["channels"]
