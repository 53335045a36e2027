"""Reference values of trees: networks, layers, data, descriptions, figures."""

from tests.parity.trees import data, descriptions, figures, layers, networks

CASES = (
    *networks.CASES,
    *layers.CASES,
    *data.CASES,
    *descriptions.CASES,
    *figures.CASES,
)
