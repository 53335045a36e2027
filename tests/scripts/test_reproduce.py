"""The scripts that reproduce whole studies ask for what exists."""

import os
import subprocess
from pathlib import Path

import pytest

from scripts import plot, systems

SCRIPTS = Path(__file__).parents[2] / "scripts/reproduce"

# Stands for Python: notes what it is asked for, and leaves what training would.
STUB = """#!/usr/bin/env bash
echo "$*" >> "$ASKED"
[[ $2 == scripts.train ]] || exit 0
run=$OUT/$3/$4/1
mkdir -p "$run"
touch "$run/config.json" "$run/summary.json"
"""


@pytest.mark.parametrize("system", ["enasq", "routing"])
@pytest.mark.parametrize("data", [(), ("--data-dir", "data")], ids=["digits", "files"])
def test_experiments_and_figures_exist_and_all_runs_are_drawn(system, data, tmp_path):
    stub, asked, out = (tmp_path / name for name in ("stub", "asked", "out"))
    stub.write_text(STUB)
    stub.chmod(0o755)
    names = {"PYTHON": str(stub), "ASKED": str(asked), "OUT": str(out)}
    command = [
        str(SCRIPTS / f"{system}.sh"),
        "--out",
        str(out),
        "--scale",
        "smoke",
        *data,
    ]
    subprocess.run(command, env=os.environ | names, check=True, capture_output=True)
    calls = [line.split() for line in asked.read_text().splitlines()]
    trained = [call[2:4] for call in calls if call[1] == "scripts.train"]
    known = systems.load(system, "experiments").EXPERIMENTS
    assert {name for name, _ in trained} == {system}
    assert {name for _, name in trained} <= set(known)
    figures = plot._choices(systems.load(system, "figures").FIGURES)
    drawn = [call for call in calls if call[1] == "scripts.plot"]
    for call in drawn:
        names = call[call.index("--figure") + 1 : call.index("--out")]
        assert names and set(names) <= set(figures)
    # No pattern of runs misses all of them, and no network was trained for nothing.
    used = {path.split("/")[-3] for call in drawn for path in call if path[-1] == "/"}
    assert used == {name for _, name in trained}
