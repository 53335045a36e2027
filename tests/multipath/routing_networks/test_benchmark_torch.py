"""The loop that we are timed against computes what the published program does."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="a dependency of benchmarks alone")

from benchmarks.routing_replay import replay  # noqa: E402

GOLDEN = Path(__file__).parents[2] / "golden" / "routing"


@pytest.mark.parametrize("grouped", [False, True], ids=["by_sample", "grouped"])
@pytest.mark.parametrize(
    "name",
    [
        "net_wpl_tabular_collab",
        "net_relax",
        "net_qlearning_eval",
        "net_reinforce_masked_manual",
    ],
)
def test_the_loop_agrees_with_the_published_program(name, grouped):
    errors = replay(GOLDEN / f"{name}.npz", grouped)
    assert max(errors.values()) < 1e-12, errors
