"""Draw an architecture of enasq, and count what its network costs.

    python -m scripts.cells "1 2 1 3 ... | 0 1 0 4 ..." [--experiment NAME] [--out DIR]
    python -m scripts.cells FILE.enasq

The first prints the layers of the network that the experiment would train of these
cells, with their parameters, stored bits and operations; with --out it also draws the
cells, as a picture and as DOT text. The second prints the layers of a packed file.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enasq import accounting, cell, config, data, drawing, packed, parts, stored
from enasq.experiments import EXPERIMENTS
from shared import cli
from shared.errors import check_choice


@dataclass(frozen=True)
class Options:
    """Draw an architecture, and count what its network costs.

    Attributes:
        what: an architecture, 8 integers for each block, or a packed file.
        experiment: whose network has these cells; `python -m scripts.train --list`.
        out: folder for `cells.png`, `ncell.dot` and `rcell.dot`.
    """

    what: str
    experiment: str = "train_mnist"
    out: Path | None = None


def main(argv: Sequence[str]) -> None:
    """Parse, draw, print the table."""
    options = cli.parse_into(Options, argv, prog="python -m scripts.cells")
    if options.what.endswith(packed.SUFFIX):
        print(stored.describe(options.what))
        return
    check_choice("experiment", options.experiment, EXPERIMENTS)
    (own,) = EXPERIMENTS[options.experiment].configs
    own = config.changed(own, task="fixed", architecture=options.what, blocks=0)
    side = own.image_size or data.SIZES[own.dataset]
    channels = own.channels or data.CHANNELS[own.dataset]
    arc = parts.architecture(own)
    network = parts.network(own, "fixed", (side, side, channels), data.CLASSES)
    print(accounting.to_text(accounting.account(network, parts.quant_policy(own), arc)))
    if options.out is not None:
        for written in drawing.save(arc, options.out, choices=own.choices):
            print(f"drawn: {written}")
    print(f"architecture: {cell.render(arc)}")


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
