"""A safe reader of pickles that contain only NumPy arrays, `Sample` records, plain containers, text and numbers.

A pickle is a program for a stack machine. Python's machine imports and calls whatever the program names. This machine
imports nothing. A global must be a key of the table in `pickle_globals`; any other global is an error.

Opcodes come from `joyful.data.cogmen.opcodes` over the bytes in memory, which limits every declared length to the bytes
that exist. There is a single pass. A scan followed by `pickle.load` would not be safe, because the two can interpret a
file differently.

Memory: each new value is charged to a budget of 16 MiB plus 8 times the size of the file. The result, written out as a
tree (a list that contains the same list twice counts it twice), also stays within this budget, except that numbers may
take 128 MiB more: many files have one row of zeros for a missing modality, which all utterances share. The result has at
most 32 levels and no cycles. Code that traverses it needs no limits.

NumPy scalars are read in runs. A file with lists of scalars has nine opcodes for each number, and reading them one by
one takes ten times as long.
"""

from __future__ import annotations

import struct
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from joyful.data.cogmen import pickle_globals
from joyful.data.cogmen.file_kinds import damage, foreign_kind, text_mode
from joyful.data.cogmen.opcodes import Opcodes
from joyful.data.cogmen.pickle_globals import (
    SCALAR,
    ArrayDraft,
    DtypeRecord,
    Global,
    RefusedPickleError,
    SampleRecord,
    describe,
)
from joyful.data.cogmen.scalars import ARGUMENT, read_scalars
from joyful.data.cogmen.tree import Tree
from joyful.records import InputError

__all__ = ["SampleRecord", "load", "loads"]

MEMORY_BASE = 16 * 2**20
MEMORY_PER_BYTE = (
    8  # a Python float takes 40 bytes in a list and 9 in the file; arrays take 2 bytes per byte of the file
)

_MAX_MARKS, _MAX_INT_BITS, _HIGHEST_PROTOCOL, _FRAME_BYTES = 256, 64, 5, 9
# bytes charged for a reference, a container, the result of a call, a NumPy scalar with its reference
_SLOT, _CONTAINER, _RESULT, _NUMBER = 16, 160, 64, 48
_OPCODES_PER_SCALAR = 8
_GETS = frozenset(["GET", "BINGET", "LONG_BINGET"])

_LITERALS = frozenset([
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8",
])  # fmt: skip
_REFUSED = {
    "PERSID": "a persistent id", "BINPERSID": "a persistent id", "EXT1": "the extension registry",
    "EXT2": "the extension registry", "EXT4": "the extension registry", "NEXT_BUFFER": "an out-of-band buffer",
    "READONLY_BUFFER": "an out-of-band buffer", "EMPTY_SET": "a set", "ADDITEMS": "a set", "FROZENSET": "a set",
}  # fmt: skip
_UNSET = object()  # a memo entry that was not written


def load(path: Path) -> Any:
    """Read a pickle from a file.

    Args:
        path: The file.

    Returns:
        The content, as `loads` returns it.

    Raises:
        InputError: If the file cannot be read, or `loads` rejects its content.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path}: expected a pickle, got {'a folder or device' if path.exists() else 'no file'}")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except MemoryError:
        raise InputError(f"{path}: does not fit in memory") from None
    return loads(data, str(path))


def loads(data: bytes, source: str) -> Any:
    """Read a pickle from bytes, without running its code.

    Args:
        data: The pickle.
        source: Name of the file, for messages.

    Returns:
        The content: lists, tuples, dicts with text keys, `SampleRecord`, text, bytes, numbers, None, and read-only
        NumPy arrays and scalars. Object arrays become nested lists.

    Raises:
        InputError: If the pickle has other content or is damaged. The message is one line that starts with `source`. No
            other exception is raised.

    Example:
        >>> import pickle
        >>> loads(pickle.dumps({"vid": "a", "label": [0, 2]}), "data.pkl")
        {'vid': 'a', 'label': [0, 2]}
    """
    if kind := foreign_kind(data):
        raise InputError(f"{source}: expected a pickle, got a file that is {kind}")
    machine = _Machine(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unknown escapes in text
            return machine.run()
    except RefusedPickleError as error:
        if what := text_mode(data):
            raise InputError(f"{source}: not a valid pickle: {what}") from None
        raise InputError(
            f"{source}: refused: {error} ({machine.place}); expected NumPy arrays and Sample records only. No code in "
            "the file was run; use a pickle that COGMEN or JOYFUL wrote, from a source that you trust"
        ) from None
    except (ValueError, OverflowError, struct.error, RecursionError) as error:
        if what := damage(data, machine.at_end):
            raise InputError(f"{source}: not a valid pickle: {what}") from None
        detail = ascii(str(error)[:100])[1:-1]
        raise InputError(f"{source}: not a valid pickle: {detail} (near {machine.place}); get the file again") from None
    except MemoryError:
        raise InputError(f"{source}: does not fit in memory ({machine.place})") from None


class _Machine:
    """The stack machine. `instructions` has all its opcodes, except literals and STOP."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.budget = MEMORY_BASE + MEMORY_PER_BYTE * len(data)
        self.spent = self.opcodes = self.position = 0
        self.at_end = False  # whether the machine came to the end of the file
        self.place = "byte 0"
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack at which unfinished containers start
        self.memo: list[Any] = []

    def instructions(self) -> dict[str, Callable[[Any], object]]:
        return {
            "PROTO": self.check_protocol,
            "FRAME": self.check_frame,
            "NONE": lambda _: self.push(None),
            "NEWTRUE": lambda _: self.push(True),
            "NEWFALSE": lambda _: self.push(False),
            "MARK": self.mark,
            "POP": self.discard,
            "POP_MARK": lambda _: self.pop_mark(),
            "DUP": lambda _: self.push(self.top()),
            "EMPTY_LIST": lambda _: self.push([], _CONTAINER),
            "EMPTY_DICT": lambda _: self.push({}, _CONTAINER),
            "EMPTY_TUPLE": lambda _: self.push(()),
            "LIST": lambda _: self.push(self.pop_mark(), _CONTAINER),
            "TUPLE": lambda _: self.push(tuple(self.pop_mark()), _CONTAINER),
            "TUPLE1": lambda _: self.push(self.pop(1), _CONTAINER),
            "TUPLE2": lambda _: self.push(self.pop(2), _CONTAINER),
            "TUPLE3": lambda _: self.push(self.pop(3), _CONTAINER),
            "DICT": self.make_dict,
            "APPEND": lambda _: self.extend(self.pop(1)),
            "APPENDS": lambda _: self.extend(self.pop_mark()),
            "SETITEM": lambda _: self.set_items(self.pop(2)),
            "SETITEMS": lambda _: self.set_items(self.pop_mark()),
            "MEMOIZE": lambda _: self.put(len(self.memo)),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self.put),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), self.get),
            # pickletools joins the two lines of a global with a space; valid names have no space
            "GLOBAL": lambda argument: self.push(pickle_globals.find(*argument.split(" ", 1))),
            "STACK_GLOBAL": lambda _: self.push(pickle_globals.find(*self.pop(2))),
            "REDUCE": lambda _: self.call(*self.pop(2)),
            "NEWOBJ": lambda _: self.call(*self.pop(2)),
            "NEWOBJ_EX": lambda _: self.call(*self.pop(3)),
            "INST": lambda argument: self.call(pickle_globals.find(*argument.split(" ", 1)), tuple(self.pop_mark())),
            "OBJ": self.make_object,
            "BUILD": self.build,
        }

    def run(self) -> Any:
        # a local variable, because an attribute would create a cycle that keeps the file in memory
        instructions = self.instructions()
        name = "the first opcode"
        stream = Opcodes(self.data)
        try:
            for name, argument in stream:
                self.position = stream.position
                self.opcodes += 1
                if name in _LITERALS:
                    self.literal(argument)
                elif name in _GETS and self.memo_entry(argument) is SCALAR and (end := self.scalars()):
                    stream.skip_to(end)
                elif name in instructions:
                    instructions[name](argument)
                elif name != "STOP":
                    raise RefusedPickleError(f"the pickle uses {_REFUSED.get(name, 'an unknown opcode')}")
            if (more := len(self.data) - self.position - 1) > 0:
                raise RefusedPickleError(f"{more} bytes follow the end of the pickle")
            if len(self.stack) != 1 or self.marks:
                raise ValueError("it ends with an unfinished value")
            Tree(self.budget).measure(self.stack)
        finally:
            self.place = f"{name} at byte {self.position}"
            self.at_end |= stream.exhausted
        return self.stack[0]

    def charge(self, cost: int) -> None:
        self.spent += cost
        if self.spent > self.budget:
            raise RefusedPickleError(f"the pickle would expand to more than {self.budget} bytes")

    # The stack

    def push(self, value: Any, cost: int = _SLOT) -> None:
        self.charge(cost)
        self.stack.append(value)

    def pop(self, count: int) -> tuple[Any, ...]:
        """Remove and return the last `count` values, in the order in which they were pushed."""
        start = self.below_top(count)
        values = tuple(self.stack[start:])
        del self.stack[start:]
        return values

    def top(self) -> Any:
        return self.stack[self.below_top(1)]

    def below_top(self, count: int) -> int:
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise ValueError("a value is missing from the stack")
        return start

    def mark(self, _: None) -> None:
        if len(self.marks) == _MAX_MARKS:
            raise RefusedPickleError(f"the pickle nests more than {_MAX_MARKS} unfinished values")
        self.marks.append(len(self.stack))

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError("a mark is missing from the stack")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def discard(self, _: None) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop(1)

    def put(self, index: int) -> None:
        if not 0 <= index <= self.opcodes:
            raise RefusedPickleError(f"the pickle writes memo entry {index} after {self.opcodes} opcodes")
        missing = max(0, index + 1 - len(self.memo))
        self.charge(_SLOT * missing)
        self.memo += [_UNSET] * missing
        self.memo[index] = self.top()

    def memo_entry(self, index: int) -> Any:
        return self.memo[index] if 0 <= index < len(self.memo) else _UNSET

    def get(self, index: int) -> None:
        value = self.memo_entry(index)
        if value is _UNSET:
            raise ValueError("a memo entry is read but was not written")
        if value is ARGUMENT:
            raise RefusedPickleError("the pickle reads an argument of a NumPy scalar")
        self.push(value.value if isinstance(value, ArrayDraft) and value.value is not None else value)

    def scalars(self) -> int:
        """Push the NumPy scalars that follow. Return the position after them, or 0 if there are none."""
        before = len(self.memo)
        values, end = read_scalars(self.data, self.position, self.memo)
        self.opcodes += _OPCODES_PER_SCALAR * len(values)
        self.charge(_NUMBER * len(values) + _SLOT * (len(self.memo) - before))
        self.stack += values
        return end if values else 0

    # Instructions that check values or build them

    def check_protocol(self, version: int) -> None:
        if version > _HIGHEST_PROTOCOL:
            raise RefusedPickleError(
                f"the pickle claims protocol {version}; protocols 0 to {_HIGHEST_PROTOCOL} are known"
            )

    def check_frame(self, length: int) -> None:
        if length > len(self.data) - self.position - _FRAME_BYTES:
            self.at_end = True
            raise ValueError("a frame ends after the end of the file")

    def literal(self, value: Any) -> None:
        if type(value) is int and value.bit_length() > _MAX_INT_BITS:
            raise RefusedPickleError(f"the pickle holds an integer of {value.bit_length()} bits")
        self.push(value, _SLOT + sys.getsizeof(value))

    def extend(self, values: Iterable[Any]) -> None:
        values, target = tuple(values), self.top()
        if type(target) is not list:
            raise RefusedPickleError(f"the pickle appends to {describe(target)}")
        self.charge(_SLOT * len(values))
        target.extend(values)

    def make_dict(self, _: None) -> None:
        items = self.pop_mark()
        self.push({}, _CONTAINER)
        self.set_items(items)

    def set_items(self, items: Iterable[Any]) -> None:
        items, target = tuple(items), self.top()
        if type(target) is not dict:
            raise RefusedPickleError(f"the pickle sets an item of {describe(target)}")
        if len(items) % 2:
            raise ValueError("a dict has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # hash collisions make a dict slow, and hashing a deeply nested tuple crashes Python
            if type(key) is not str:
                raise RefusedPickleError(f"the pickle has {describe(key)} as the key of a dict; keys are text")
            self.charge(_RESULT)
            target[key] = value

    def make_object(self, _: None) -> None:
        values = self.pop_mark()
        if not values:
            raise ValueError("an object has no class")
        self.call(values[0], tuple(values[1:]))

    def call(self, function: Any, arguments: Any, keywords: Any = None) -> None:
        if type(keywords) not in (dict, type(None)) or keywords:
            raise RefusedPickleError(f"the pickle calls {describe(function)} with keywords")
        if type(function) is not Global or function.call is None or type(arguments) is not tuple:
            raise RefusedPickleError(f"the pickle calls {describe(function)} with {describe(arguments)}")
        self.push(function.call(self, arguments), _RESULT)

    def build(self, _: None) -> None:
        target, state = self.pop(2)
        if type(target) is SampleRecord:
            # for a class with slots, the state is a pair: the dict of the instance and the slots
            for part in state if type(state) is tuple and len(state) == 2 else (state,):
                if type(part) is not dict and part is not None:
                    raise RefusedPickleError(
                        f"the pickle sets a Sample to {describe(part)}; expected a dict of attributes"
                    )
                self.charge(_RESULT * len(part or ()))
                target.attributes.update(part or {})
        elif type(target) is DtypeRecord:
            pickle_globals.set_dtype_state(target, state)
        elif type(target) is ArrayDraft:
            pickle_globals.set_array_state(self, target, state)
            target = target.value
        else:
            raise RefusedPickleError(f"the pickle sets the state of {describe(target)}")
        self.push(target, _RESULT)
