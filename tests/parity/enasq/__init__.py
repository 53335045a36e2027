"""Reference values of quantisers, bit kernels, architectures, networks and data."""

from tests.parity.enasq import bits, data, networks, quantizers, search

CASES = (
    *quantizers.CASES,
    *bits.CASES,
    *search.CASES,
    *data.CASES,
    *networks.CASES,
)
