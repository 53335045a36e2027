"""Train three learning rules on the embedded digits and draw them: a first look.

    python -m scripts.demo

Prints a table and writes pictures; takes a minute or two on two CPU cores.
"""

import sys
from collections.abc import Sequence

from scripts import plot, systems, train
from shared import cli
from shared.errors import UsageError

ARGUMENTS = "gaitprop digits-rules --seeds 3 --out demo".split()


def main(argv: Sequence[str]) -> None:
    """Train, then draw."""
    if list(argv) in (["-h"], ["--help"]):
        print(__doc__)
        return
    if argv:
        raise UsageError("arguments", " ".join(argv), "none; see scripts.train")
    print("Back-propagation, GAIT-prop and target-prop on 8x8 digits, 3 seeds each.")
    path = train.run(cli.parse(ARGUMENTS, systems.EXPERIMENTS, prog="demo"))
    names = ("learning-curves", "angle", "orthogonality", "scatter")
    plot.draw("gaitprop", [path], path / "figures", names)


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
