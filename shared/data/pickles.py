"""Reading CIFAR's pickled files without running what a pickle may ask for.

A pickle can name any function of the machine it is read on. Here every name resolves
either to one of the few stand-ins below, which only record what an array is made of,
or to an error; not even NumPy's own reconstruction code runs on the file's data. The
stand-ins cover the names under which NumPy 1 and 2 write an array.
"""

import io
import math
import pickle
from typing import Any

import numpy as np

from shared.errors import UsageError

_TYPES = ("u1", "i1", "i2", "i4", "i8")


def load(content: bytes, where: str) -> dict[str, Any]:
    """Return the dictionary of a pickled file, arrays as NumPy arrays.

    Args:
        content: the pickle.
        where: the file's name, for the message.

    Raises:
        UsageError: for anything but a dictionary of plain values and arrays.
    """
    try:
        # Python 2 wrote byte strings for keys and for the arrays' data.
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(loaded, dict):
            raise pickle.UnpicklingError(f"a pickled {type(loaded).__name__}")
        return {_text(key): _plain(value) for key, value in loaded.items()}
    except UsageError:
        raise
    except Exception as error:  # a hostile pickle can raise anything
        given = str(error) or type(error).__name__
        allowed = "a pickled dictionary of NumPy arrays"
        raise UsageError(where, given, allowed) from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            if name == "_reconstruct":
                return lambda *_: _Array()
        elif module in ("numpy.core.numeric", "numpy._core.numeric"):
            if name == "_frombuffer":
                return lambda *parts: _Array.from_buffer(*parts)
        elif (module, name) == ("numpy", "dtype"):
            return lambda code, *_: _Type(code)
        elif (module, name) == ("numpy", "ndarray"):
            return None
        elif (module, name) == ("_codecs", "encode"):
            # Python 3 writes bytes so in the old protocols.
            return lambda text, _: text.encode("latin1")
        raise pickle.UnpicklingError(f"a pickle that asks for {module}.{name}")


class _Type:
    """Stands for a NumPy type, by its code."""

    def __init__(self, code: Any):
        self.code, self.order = _text(code), "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = _text(state[1])


class _Array:
    """Stands for a NumPy array: shape, type and bytes."""

    shape: tuple[int, ...] = ()
    type: Any = None
    fortran, data = False, b""

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.type, self.fortran, self.data = state

    @classmethod
    def from_buffer(cls, data: Any, kind: Any, shape: Any, order: Any) -> "_Array":
        array = cls()
        array.__setstate__((1, shape, kind, _text(order) == "F", bytes(data)))
        return array

    def build(self) -> np.ndarray:
        if not isinstance(self.type, _Type) or self.type.code not in _TYPES:
            raise pickle.UnpicklingError("an array of another type than integers")
        order = ">" if self.type.order == ">" else "<"
        kind = np.dtype(order + self.type.code)
        if not all(isinstance(size, int) and size >= 0 for size in self.shape):
            raise pickle.UnpicklingError("an array without a shape")
        if not isinstance(self.data, bytes):
            raise pickle.UnpicklingError("an array without bytes")
        if len(self.data) != math.prod(self.shape) * kind.itemsize:
            raise pickle.UnpicklingError("an array with missing or surplus bytes")
        flat = np.frombuffer(self.data, kind)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _plain(value: Any) -> Any:
    return value.build() if isinstance(value, _Array) else value


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
