"""Trained networks of many runs."""

from shared import runs, trained


def test_a_network_counts_once_as_far_as_it_got(tmp_path):
    seeds = [{"seed": seed} for seed in (1, 2)]
    for steps in ((5, 5), (9, 3)):
        with runs.create(tmp_path, "system", "tried", seeds[0], {}, seeds) as run:
            for member, step in enumerate(steps):
                run.log(step, {"loss": 1.0}, member)
    found = trained.read(runs.find(tmp_path))
    ends = [(one.config["seed"], one.records[-1]["step"]) for one in found]
    assert ends == [(1, 9), (2, 5)]


def test_fields_that_others_tell_already_are_left_out():
    configs = [
        {"lr": 0.1, "rule": "bp", "seed": 1},
        {"lr": 0.2, "rule": "gait", "seed": 1},
        {"lr": 0.2, "rule": "gait", "seed": 2},
    ]
    assert trained.telling_fields(configs) == ["lr"]
    assert trained.telling_fields(configs, first=["rule"]) == ["rule"]
    everything = trained.telling_fields(configs, first=["rule"], ignore=())
    assert everything == ["rule", "seed"]
    assert trained.telling_fields(configs[1:]) == []
