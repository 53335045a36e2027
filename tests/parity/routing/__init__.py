"""Reference values of routing networks: algorithms, parts, sequences, models."""

from tests.parity.routing import core, models, parts, passes, sequence

CASES = (
    *core.CASES,
    *passes.CASES,
    *parts.CASES,
    *sequence.CASES,
    *models.CASES,
)
