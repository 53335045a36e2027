"""A config splits into a static part that decides programs and traced values."""

import dataclasses
import json
from typing import Literal

import jax.numpy as jnp
import pytest

from shared import config
from shared.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Settings:
    width: int = 4
    sizes: tuple[int, ...] = (1, 2)
    rate: float = config.traced(0.1)
    weight: float = config.traced(0.0, zero_is_static=True)
    seed: int = config.traced(3)

    def __post_init__(self):
        if self.rate <= 0:
            raise UsageError("rate", self.rate, "a number > 0")


def test_configs_that_differ_in_traced_values_share_their_static_part():
    one = config.split(Settings(rate=0.1))[0]
    other = config.split(Settings(rate=2.0))[0]
    assert one == other and hash(one) == hash(other)


def test_static_values_and_switched_off_terms_tell_programs_apart():
    base = config.split(Settings())[0]
    assert config.split(Settings(width=5))[0] != base
    assert config.split(Settings(weight=0.5))[0] != base
    assert base.weight == 0.0


def test_traced_values_become_arrays_of_their_kind():
    _, hyper = config.split(Settings(rate=0.5, weight=2.0))
    assert set(hyper) == {"rate", "weight", "seed"}
    assert hyper["rate"].dtype == jnp.float32 and hyper["seed"].dtype == jnp.int32
    assert float(hyper["weight"]) == 2.0


def test_static_part_does_not_pass_for_a_number():
    static, _ = config.split(Settings())
    with pytest.raises(TypeError):
        static.rate * 2


def test_written_form_restores_the_config():
    original = Settings(width=7, sizes=(3, 2, 1), rate=0.25)
    written = json.loads(json.dumps(config.to_dict(original)))
    assert config.from_dict(Settings, written) == original


def test_unknown_field_is_refused():
    with pytest.raises(UsageError, match="config field: got 'speed'"):
        config.from_dict(Settings, {"speed": 1})


def test_whole_number_for_a_float_field_is_traced_as_a_float():
    settings = Settings()
    object.__setattr__(settings, "rate", 1)
    assert config.split(settings)[1]["rate"].dtype == jnp.float32


@dataclasses.dataclass(frozen=True)
class Checked:
    way: Literal["left", "right"] = "left"
    words: tuple[str, ...] = ("a", "b")
    sizes: tuple[int, ...] = (3, 4)
    rate: float = config.traced(0.5)

    def __post_init__(self):
        config.check_choices(self, words=("a", "b"))
        config.check_ranges(self, "rate", "sizes", low=0, low_open=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"way": "up"}, "way: got 'up', expected one of left, right"),
        ({"words": ("b", "c")}, "words: got 'c', expected one of a, b"),
        ({"rate": 0.0}, "rate: got 0.0, expected a number > 0"),
        ({"sizes": (3, 0)}, "sizes: got 0, expected a number > 0"),
    ],
)
def test_fields_are_checked_by_name(changes, message):
    assert Checked(way="right", sizes=()).sizes == ()
    with pytest.raises(UsageError, match=message):
        Checked(**changes)


def test_nested_tuples_survive_json():
    nested = {"width": 4, "sizes": [[1, 2], [3]]}
    assert config.from_dict(Settings, nested).sizes == ((1, 2), (3,))
