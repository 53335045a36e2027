"""Cells of an architecture, drawn and counted from the command line."""

import pytest

from enasq import accounting, config, parts
from enasq.experiments import EXPERIMENTS
from scripts import cells
from shared.errors import UsageError

ARC = "0 0 1 3 | 1 1 0 4"


def test_cells_are_drawn_and_counted(tmp_path, capsys):
    cells.main([ARC, "--experiment", "digits-search", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    (own,) = EXPERIMENTS["digits-search"].configs
    own = config.changed(own, task="fixed", architecture=ARC, blocks=0)
    network = parts.network(own, "fixed", (8, 8, 1), 10)
    account = accounting.account(
        network, parts.quant_policy(own), parts.architecture(own)
    )
    assert accounting.to_text(account) in text
    assert {path.name for path in tmp_path.iterdir()} == {
        *("cells.png", "ncell.dot", "rcell.dot"),
    }
    assert text.endswith("architecture: 0 0 1 3 1 1 0 4\n")


def test_what_is_no_architecture_is_refused():
    with pytest.raises(UsageError, match="architecture"):
        cells.main(["0 0 1 9 | 1 1 0 4"])
    with pytest.raises(UsageError, match="experiment: got 'digits'"):
        cells.main([ARC, "--experiment", "digits"])
