"""The globals that a data pickle may name, and the safe constructors that replace their calls.

NumPy's constructors trust their arguments. A forged shape or data type can make them read or allocate arbitrary memory.
They are therefore never called with arguments from the file. Data types must match an allow-list (bool, integers,
floats, text and bytes of fixed width, objects). The bytes of an array must have exactly the length that its shape and
data type require.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

_MAX_AXES, _MAX_CODE_POINT = 8, 0x10FFFF
_DTYPE_CODE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|[US]\d{1,5}|(O)[48]?)", re.ASCII)
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)


class RefusedPickleError(Exception):
    """The pickle contains something that no dataset needs. The reader converts this error to InputError."""


class MemoryBudget(Protocol):
    """Limits the memory that values of a file can take."""

    def charge(self, cost: int) -> None:
        """Count `cost` bytes.

        Raises:
            RefusedPickleError: If the budget is exceeded.
        """
        ...


@dataclass(eq=False, slots=True)
class SampleRecord:
    """The attributes of an instance of `Sample`. The class of the file is not used.

    Attributes:
        attributes: Name -> value.
    """

    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class ArrayDraft:
    """An array that has been created and gets its content from a later BUILD.

    Attributes:
        value: The array, or None before BUILD.
    """

    value: Any = None


@dataclass(eq=False, slots=True)
class DtypeRecord:
    """A data type of the allow-list. BUILD can set its byte order once.

    Attributes:
        dtype: The data type.
        built: Whether BUILD has been applied.
    """

    dtype: np.dtype[Any]
    built: bool = False


@dataclass(frozen=True, eq=False)
class Global:
    """A global that a file may name.

    Attributes:
        name: Description for messages.
        call: Function that checks the arguments and builds the value. None means that calls are refused.
    """

    name: str
    call: Callable[[MemoryBudget, tuple[Any, ...]], Any] | None = None


def find(module: Any, name: Any) -> Global:
    """Return the entry of a global. Nothing is imported.

    Args:
        module: Name of the module, as in the file.
        name: Name in the module, as in the file.

    Raises:
        RefusedPickleError: If the global is not in the table.
    """
    if type(module) is not str or type(name) is not str:
        raise RefusedPickleError(f"the pickle looks up {describe(name)} in {describe(module)}")
    if name == "Sample" and _MODULE.fullmatch(module):
        return SAMPLE  # whatever module defined it, such as __main__ for a script; it is not imported
    entry = _GLOBALS.get((module, name))
    if entry is None:
        hint = _HINTS.get(module.split(".")[0], "")
        raise RefusedPickleError(f"the pickle calls {_plain(module)}.{_plain(name)}{hint}")
    return entry


def describe(value: Any) -> str:
    """Return a short description of a value of the file. Its repr can be arbitrarily long."""
    if type(value) is Global:
        return value.name
    if type(value) is ArrayDraft:
        return "an array without content" if value.value is None else "an array inside itself"
    return {DtypeRecord: "a data type", SampleRecord: "a Sample"}.get(
        type(value), f"a value of type {type(value).__name__}"
    )


def set_dtype_state(record: DtypeRecord, state: Any) -> None:
    """Apply BUILD to a data type.

    Args:
        record: The data type.
        state: (version, byte order, subtype, names, fields, item size, alignment, flags[, metadata]).

    Raises:
        RefusedPickleError: If the state is something other than a byte order.
    """
    plain = type(state) is tuple and len(state) in (8, 9) and all(part is None for part in (*state[2:5], *state[8:]))
    if record.built or not plain or type(state[1]) is not str or state[1] not in ("<", ">", "|", "="):
        raise RefusedPickleError("the pickle sets a data type to something other than a byte order")
    if state[1] == ">":
        record.dtype = record.dtype.newbyteorder(">")
    record.built = True


def set_array_state(budget: MemoryBudget, draft: ArrayDraft, state: Any) -> None:
    """Apply BUILD to an array: set `draft.value`.

    Args:
        budget: Limits the memory.
        draft: The array.
        state: ([version,] shape, data type, whether in Fortran order, content). The content is bytes, or a list for
            object arrays.

    Raises:
        RefusedPickleError: If the state does not describe an array, or exceeds the budget.
    """
    parts = state[1:] if type(state) is tuple and len(state) == 5 else state
    if draft.value is not None or type(parts) is not tuple or len(parts) != 4:
        raise RefusedPickleError("the pickle sets the state of an array to something else")
    shape, dtype, fortran, content = parts
    if type(dtype) is not DtypeRecord or type(fortran) not in (bool, int):
        raise RefusedPickleError("the pickle builds an array without a data type")
    if dtype.dtype.hasobject:
        draft.value = _nested_lists(budget, _checked_shape(shape), bool(fortran), content)
    else:
        draft.value = _array(budget, dtype.dtype, _checked_shape(shape), "F" if fortran else "C", content)


def _array(budget: MemoryBudget, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any, content: Any) -> np.ndarray:
    content = content.encode("latin-1") if type(content) is str else content  # Python 2 wrote bytes as text
    if type(content) not in (bytes, bytearray):
        raise RefusedPickleError(f"the pickle fills an array of {dtype} with {describe(content)}")
    if dtype.itemsize == 0 or math.prod(shape) * dtype.itemsize != len(content):
        raise RefusedPickleError(f"the pickle has {len(content)} bytes for an array of {dtype} and shape {shape}")
    budget.charge(len(content))
    values = np.frombuffer(content, dtype) if content else np.zeros(0, dtype)
    if dtype.kind == "b":
        values = np.frombuffer(content, np.uint8) != 0  # a NumPy bool must be the byte 0 or 1
    elif dtype.kind == "U" and content:
        code_points = np.frombuffer(content, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if code_points.max() > _MAX_CODE_POINT:
            raise RefusedPickleError("the pickle has text with code points that are no characters")
    values = values.reshape(shape, order=order)
    values.flags.writeable = False
    return values


def _nested_lists(budget: MemoryBudget, shape: tuple[int, ...], fortran: bool, elements: Any) -> list[Any]:
    """Return an object array as nested lists, so that its elements are checked like those of other containers."""
    if type(elements) is not list or not shape or math.prod(shape) != len(elements) or (fortran and len(shape) > 1):
        raise RefusedPickleError(f"the pickle has {describe(elements)} for an object array of shape {shape}")
    nested = list(elements)
    for extent in reversed(shape[1:]):
        budget.charge(256 * len(nested))
        nested = [nested[start : start + extent] for start in range(0, len(nested), extent or 1)]
    budget.charge(16 * len(elements))
    return nested


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if not _are_counts(shape):
        raise RefusedPickleError("the pickle has an array with an invalid shape")
    if 0 in shape and shape[0] != 0:
        # such an array can have any number of rows without any bytes in the file
        raise RefusedPickleError("the pickle has an array of rows without numbers")
    return shape


def _are_counts(numbers: Any) -> bool:
    return type(numbers) is tuple and len(numbers) <= _MAX_AXES and all(type(n) is int and n >= 0 for n in numbers)


# The constructors. They accept only the arguments that picklers write.


def _call_dtype(_: MemoryBudget, arguments: tuple[Any, ...]) -> DtypeRecord:
    """Replace numpy.dtype(code, align, copy)."""
    code = arguments[0] if arguments else None
    match = _DTYPE_CODE.fullmatch(code) if type(code) is str and len(arguments) <= 3 else None
    if match is None:
        raise RefusedPickleError(
            f"the pickle asks for the data type {_plain(code) if type(code) is str else describe(code)}"
        )
    return DtypeRecord(np.dtype(object) if match[1] else np.dtype(match[0]))


def _call_reconstruct(_: MemoryBudget, arguments: tuple[Any, ...]) -> ArrayDraft:
    """Replace numpy._core.multiarray._reconstruct(ndarray, (0,), b"b"), an empty array that BUILD fills."""
    if len(arguments) != 3 or arguments[0] is not _NDARRAY or _checked_shape(arguments[1]) != (0,):
        raise RefusedPickleError("the pickle reconstructs something other than a plain array")
    return ArrayDraft()


def _call_frombuffer(budget: MemoryBudget, arguments: tuple[Any, ...]) -> np.ndarray:
    """Replace numpy._core.numeric._frombuffer(buffer, dtype, shape, order[, axes]), which protocol 5 writes."""
    if len(arguments) not in (4, 5) or type(arguments[1]) is not DtypeRecord or arguments[1].dtype.hasobject:
        raise RefusedPickleError("the pickle creates an array from a buffer with the wrong arguments")
    content, record, shape, order, axes = (*arguments, None)[:5]
    shape = _checked_shape(shape)
    if type(order) is not str or order not in ("C", "F", "K") or (order == "K") != (axes is not None):
        raise RefusedPickleError("the pickle asks for an unknown memory order")
    array = _array(budget, record.dtype, shape, "F" if order == "F" else "C", content)
    if axes is None:
        return array
    if not _are_counts(axes) or sorted(axes) != list(range(array.ndim)):
        raise RefusedPickleError("the pickle permutes axes that an array does not have")
    return array.transpose(axes)


def _call_scalar(budget: MemoryBudget, arguments: tuple[Any, ...]) -> np.generic:
    """Replace numpy._core.multiarray.scalar(dtype, bytes)."""
    if len(arguments) != 2 or type(arguments[0]) is not DtypeRecord or arguments[0].dtype.hasobject:
        raise RefusedPickleError("the pickle creates a scalar with the wrong arguments")
    dtype, content = arguments[0].dtype, arguments[1]
    if dtype.itemsize == 0 and type(content) in (str, bytes) and not content:
        return dtype.type()
    return _array(budget, dtype, (1,), "C", content)[0]


def _call_sample(_: MemoryBudget, arguments: tuple[Any, ...]) -> SampleRecord:
    if arguments:
        raise RefusedPickleError("the pickle calls Sample with arguments; a record has attributes only")
    return SampleRecord()


def _call_reconstructor(_: MemoryBudget, arguments: tuple[Any, ...]) -> SampleRecord:
    """Replace copyreg._reconstructor(Sample, object, None), with which protocols 0 and 1 create an instance."""
    if len(arguments) != 3 or arguments[0] is not SAMPLE or arguments[1] is not _OBJECT or arguments[2] is not None:
        raise RefusedPickleError("the pickle reconstructs something other than a Sample")
    return SampleRecord()


def _call_encode(budget: MemoryBudget, arguments: tuple[Any, ...]) -> bytes:
    """Replace _codecs.encode(text, "latin1"), with which protocols 0 to 2 write bytes."""
    if [type(argument) for argument in arguments] != [str, str] or arguments[1] not in ("latin1", "latin-1"):
        raise RefusedPickleError("the pickle calls _codecs.encode for something other than bytes")
    budget.charge(len(arguments[0]))
    text: str = arguments[0]
    return text.encode("latin-1")


def _call_bytes(_: MemoryBudget, arguments: tuple[Any, ...]) -> bytes:
    """Replace bytes(), with which protocols 0 to 2 write an empty bytes object."""
    if arguments:
        raise RefusedPickleError("the pickle calls bytes with arguments")
    return b""


def _plain(name: str) -> str:
    return name if re.fullmatch(r"[\w.]{1,80}", name, re.ASCII) else ascii(name[:80])


SAMPLE = Global("the class Sample", _call_sample)
_NDARRAY = Global("the class numpy.ndarray")
_OBJECT = Global("the class object")

_RECONSTRUCT = Global("the function numpy._reconstruct", _call_reconstruct)
_FROMBUFFER = Global("the function numpy._frombuffer", _call_frombuffer)
SCALAR = Global("the function numpy.scalar", _call_scalar)
_RECONSTRUCTOR = Global("the function copyreg._reconstructor", _call_reconstructor)
_BYTES = Global("the class bytes", _call_bytes)

# Package -> what to do with its objects.
_HINTS = {
    "torch": ": convert tensors to arrays with .numpy()",
    "pandas": ": convert tables to arrays with .to_numpy()",
    "joblib": ": write the file with pickle.dump",
}

# (module, name) -> entry. numpy.core is NumPy 1 and numpy._core is NumPy 2. copy_reg and __builtin__ are names of
# Python 2, which Python 3 also writes in protocols 0 to 2.
_GLOBALS: dict[tuple[str, str], Global] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Global("the class numpy.dtype", _call_dtype),
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): SCALAR,
    ("numpy._core.multiarray", "scalar"): SCALAR,
    ("numpy.core.numeric", "_frombuffer"): _FROMBUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROMBUFFER,
    ("_codecs", "encode"): Global("the function _codecs.encode", _call_encode),
    ("copyreg", "_reconstructor"): _RECONSTRUCTOR,
    ("copy_reg", "_reconstructor"): _RECONSTRUCTOR,
    ("builtins", "object"): _OBJECT,
    ("__builtin__", "object"): _OBJECT,
    ("builtins", "bytes"): _BYTES,
    ("__builtin__", "bytes"): _BYTES,
}
