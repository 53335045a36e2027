"""Solvers: how the inverse of a kernel is applied to a batch of rows, `q W^-1`.

| solver | what it does | operations for a batch of N rows |
|---|---|---|
| `lu` | factors W every step | (2/3) n^3 + 2 N n^2 |
| `inv` | inverts W every step | 2 n^3 + 2 N n^2 |
| `refine` | improves on an approximate inverse | (4 + 4 sweeps) N n^2 |
| `transpose` | uses W^T, right for orthonormal kernels only | 2 N n^2 |

`lu` and `inv` are right for accelerators that train many networks at once under
`vmap`, where both sides of `refine`'s decisions would run; `refine` is the fastest for
one network or networks in turn.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxtyping import Array

from gaitprop import factors, refine, regulariser

Solution = tuple[Array, Any, dict[str, Array]]


class Solver(NamedTuple):
    """One way to compute `q W^-1`.

    Attributes:
        start: `(kernel, regularised) -> memory`, what is kept of a kernel from one
            training step to the next; `()` where nothing is.
        prepare: `kernels -> tools`, what depends on the kernels alone, one entry each.
        solve: `(layer, tool, memory, q, tolerance) -> (x, memory, info)`.
    """

    start: Callable[[Array, bool], Any]
    prepare: Callable[[Sequence[Array]], Sequence[Any]]
    solve: Callable[..., Solution]


def _forget(kernel: Array, regularised: bool) -> tuple[()]:
    del kernel, regularised
    return ()


def _no_tools(kernels: Sequence[Array]) -> Sequence[Any]:
    return [()] * len(kernels)


def _factor_all(kernels: Sequence[Array]) -> Sequence[Any]:
    return factors.by_width(factors.factor, kernels)


def _invert_all(kernels: Sequence[Array]) -> Sequence[Any]:
    return factors.by_width(factors.invert, kernels)


def _solve_lu(layer, tool, memory, q, tolerance) -> Solution:
    del layer, tolerance
    return factors.solve(tool, q), memory, {}


def _solve_inv(layer, tool, memory, q, tolerance) -> Solution:
    del layer, tolerance
    return q @ tool, memory, {}


def _solve_transpose(layer, tool, memory, q, tolerance) -> Solution:
    del tool, tolerance
    return q @ layer["kernel"].T, memory, {}


def _start_refine(kernel: Array, regularised: bool) -> Any:
    """Remember nothing where the regulariser keeps rows orthogonal."""
    return () if regularised else refine.start(kernel)


def _solve_refine(layer, tool, memory, q, tolerance) -> Solution:
    del tool
    if memory != ():
        return refine.with_memory(layer["kernel"], memory, q, tolerance)
    gram = layer.get("gram")
    gram = regulariser.gram(layer["kernel"]) if gram is None else gram
    x, info = refine.with_gram(layer["kernel"], gram, q, tolerance)
    return x, memory, info


SOLVERS: dict[str, Solver] = {
    "lu": Solver(_forget, _factor_all, _solve_lu),
    "inv": Solver(_forget, _invert_all, _solve_inv),
    "refine": Solver(_start_refine, _no_tools, _solve_refine),
    "transpose": Solver(_forget, _no_tools, _solve_transpose),
}
"""Solvers by name; `config.solver` picks one."""
