"""Hostile pickles that `joyful.data.cogmen.restricted_pickle` must refuse.

They are written opcode by opcode, because a normal pickler cannot create them. Under Python's own unpickler, pickles
with the prefix "run" execute code that creates the file `canary`. The others forge NumPy objects, are memory bombs, or
are damaged.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import struct
import zlib
from pathlib import Path
from typing import NamedTuple


class HostilePickle(NamedTuple):
    """A hostile pickle.

    Attributes:
        data: The content of the file.
        expected: Part of the expected error message.
        runs: Whether pickle.loads would create the canary.
    """

    data: bytes
    expected: str
    runs: bool = False


def hostile_pickles(canary: Path) -> dict[str, HostilePickle]:
    """Return name -> pickle. `canary` must not exist. If it exists after reading, a pickle has executed code."""
    return {
        **_running(canary),
        **_naming(canary),
        **_machinery(),
        **_forged_arrays(),
        **_bombs(),
        **_foreign(),
        **_damaged(),
    }


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _stack_global(module: str, name: str) -> bytes:
    return _text(module) + _text(name) + b"\x93"


def _int(value: int) -> bytes:
    return f"I{value}\n".encode()


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _call(function: bytes, *arguments: bytes) -> bytes:
    return function + _tuple(*arguments) + b"R"


def _file(*parts: bytes, protocol: int = 4) -> bytes:
    return b"\x80" + bytes([protocol]) + b"".join(parts) + b"."


def _running(canary: Path) -> dict[str, HostilePickle]:
    """Return pickles that execute code under pickle.loads, by every opcode that can call a function."""
    touch, code = f"touch '{canary}'", f"open({str(canary)!r}, 'w').close()"
    shell, string = _text(touch), f'S"{touch}"\n'.encode()
    system = _global("posix", "system")
    harmless = pickle.dumps({"train": list(range(100))}, 4)[2:-1]
    files = {
        "global": (b"cposix\nsystem\n(" + string + b"tR.", "posix.system"),
        "inst": (b"(" + string + b"iposix\nsystem\n.", "posix.system"),
        "obj": (_file(b"(", system, shell, b"o"), "posix.system"),
        "stack_global": (_file(_call(_stack_global("os", "system"), shell)), "os.system"),
        "dotted_name": (_file(_call(_stack_global("posixpath", "os.system"), shell)), "posixpath.os.system"),
        "memoized": (_file(system, b"\x940", b"h\x00", _tuple(shell), b"R"), "posix.system"),
        "popped": (_file(_call(system, shell), b"0", _text("data")), "posix.system"),
        "late": (_file(harmless, b"0", _call(system, shell)), "posix.system"),
        "in_a_dict": (_file(b"}", _text("train"), _call(system, shell), b"s"), "posix.system"),
        "newobj": (_file(_global("subprocess", "Popen"), b")\x810", _call(system, shell)), "subprocess.Popen"),
        "eval": (_file(_call(_global("builtins", "eval"), _text(code))), "builtins.eval"),
        "exec": (_file(_call(_global("builtins", "exec"), _text(code))), "builtins.exec"),
        "python_2_eval": (_file(_call(_global("__builtin__", "eval"), _text(code)), protocol=2), "__builtin__.eval"),
        "open": (_file(_call(_global("builtins", "open"), _text(str(canary)), _text("w"))), "builtins.open"),
        "io_open": (_file(_call(_global("io", "open"), _text(str(canary)), _text("w"))), "io.open"),
        "getattr": (
            _file(_call(_call(_global("builtins", "getattr"), _global("shutil", "os"), _text("system")), shell)),
            "builtins.getattr",
        ),
        "subprocess": (_file(_call(_global("subprocess", "getoutput"), shell)), "subprocess.getoutput"),
        "nested": (
            _file(_call(_global("pickle", "loads"), b"B", _sized(b"cposix\nsystem\n(" + string + b"tR."))),
            "pickle.loads",
        ),
        "timeit": (
            _file(
                _call(_global("timeit", "repeat"), _text(code), _text(""), _global("time", "time"), _int(1), _int(1))
            ),
            "timeit.repeat",
        ),
        "partial": (_file(_call(_global("functools", "partial"), _call(system, shell))), "functools.partial"),
        "map": (
            _file(_call(_global("builtins", "list"), _call(_global("builtins", "map"), system, _tuple(shell)))),
            "builtins",
        ),
        "frame_that_ends_early": (_file(b"\x95" + struct.pack("<Q", 3), _call(system, shell)), "posix.system"),
        "frames_one_in_another": (
            _file(b"\x95" + struct.pack("<Q", 12), b"\x95" + struct.pack("<Q", 2), _call(system, shell)),
            "posix.system",
        ),
        "memo_written_twice": (
            _file(_text("data"), b"q\x000", system, b"q\x000h\x00", _tuple(shell), b"R"),
            "posix.system",
        ),
        "memo_in_text": (_file(system, b"p007\n0g7\n", _tuple(shell), b"R"), "posix.system"),
        "memo_under_a_name": (
            _file(_text("posix"), b"\x940", _text("system"), b"\x940h\x00h\x01\x93", _tuple(shell), b"R"),
            "posix.system",
        ),
        "state_of_a_sample": (
            _file(_call(_global("Sample", "Sample")), b"}", _text("vid"), _call(system, shell), b"sb"),
            "posix.system",
        ),
        "element_of_an_array": (_file(_array("O8", (1,), b"](" + _call(system, shell) + b"e")), "posix.system"),
        "argument_of_a_sample": (
            _file(_global("Sample", "Sample"), _tuple(_call(system, shell)), b"\x81"),
            "posix.system",
        ),
        "default_of_getattr": (
            _file(_call(_global("builtins", "getattr"), _int(1), _text("x"), _call(system, shell))),
            "builtins.getattr",
        ),
        "added_extension": (
            _file(
                _call(_global("copyreg", "add_extension"), _text("posix"), _text("system"), _int(213)),
                b"0\x82\xd5",
                _tuple(shell),
                b"R",
            ),
            "copyreg.add_extension",
        ),
        "methodcaller": (
            _file(_call(_call(_global("operator", "methodcaller"), _text("touch")), _path(canary))),
            "operator.methodcaller",
        ),
    }
    return {f"run_{name}": HostilePickle(data, expected, True) for name, (data, expected) in files.items()}


def _sized(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _path(path: Path) -> bytes:
    return _call(_global("pathlib", "PosixPath"), _text(str(path)))


def _naming(canary: Path) -> dict[str, HostilePickle]:
    """Return pickles with forbidden globals: names similar to allowed ones, or functions that are missing here."""
    shell = _text(f"touch '{canary}'")
    names = {
        "windows": ("nt", "system"), "popen": ("os", "popen"), "numpy_function": ("numpy", "fromfile"),
        "numpy_load": ("numpy", "load"), "numpy_memmap": ("numpy", "memmap"),
        "numpy_f2py": ("numpy.f2py.crackfortran", "getlincoef"), "torch": ("torch", "load"),
        "torch_tensor": ("torch._utils", "_rebuild_tensor_v2"), "pandas": ("pandas", "read_pickle"),
        "sample_attribute": ("Sample", "Sample.system"), "sample_module": ("Sample", "os"),
        "sample_lookalike": ("Sampl3", "Sample"), "sample_case": ("sample", "Sample"),
        "main_sample": ("__main__", "Sample"), "exit": ("os", "_exit"), "sys_exit": ("sys", "exit"),
        "import": ("builtins", "__import__"), "extension": ("copyreg", "add_extension"),
        "marshal": ("marshal", "loads"), "function": ("types", "FunctionType"), "ctypes": ("ctypes", "string_at"),
        "remove": ("shutil", "rmtree"), "range": ("builtins", "range"),
        "ordered_dict": ("collections", "OrderedDict"), "set": ("builtins", "set"),
    }  # fmt: skip
    files = {name: (_file(_call(_stack_global(*pair), shell)), "calls") for name, pair in names.items()}
    files |= {
        "line_break": (_file(_call(_stack_global("Sample\nposix", "Sample"), shell)), r"'Sample\nposix'"),
        "terminal_codes": (_file(_call(_stack_global("\x1b[2J", "clear"), shell)), r"'\x1b[2J'"),
        "escaped_letter": (_file(_call(_global("posix", r"\x73ystem"), shell)), "posix.system"),
        "endless_name": (_file(_call(_stack_global("a" * 10_000, "b"), shell)), "aaaa"),
        "no_text": (_file(_int(1), _int(2), b"\x93"), "looks up"),
    }
    return {f"name_{name}": HostilePickle(*file) for name, file in files.items()}


def _machinery() -> dict[str, HostilePickle]:
    """Return pickles with opcodes, or with uses of allowed globals, that no data file contains."""
    sample, array = _global("Sample", "Sample"), _array()
    files = {
        "persistent_id": (b"Pevil\n.", "persistent id"),
        "binary_persistent_id": (_file(_text("evil"), b"Q"), "persistent id"),
        "persistent_tuple": (
            _file(_tuple(_text("storage"), _global("torch", "FloatStorage"), _text("0")), b"Q"),
            "torch",
        ),
        "extension_0": (_file(b"\x82\x00"), "extension"),
        "extension_1": (_file(b"\x82\x01"), "extension"),
        "extension_2": (_file(b"\x83\x01\x00"), "extension"),
        "extension_4": (_file(b"\x84\x01\x00\x00\x00"), "extension"),
        "buffer": (_file(b"\x97", protocol=5), "out-of-band"),
        "readonly_buffer": (_file(b"N\x98", protocol=5), "out-of-band"),
        "set": (_file(b"\x8f"), "a set"),
        "frozen_set": (_file(b"(\x91"), "a set"),
        "sample_arguments": (_file(_call(sample, _int(1))), "arguments"),
        "sample_keywords": (_file(sample, b")}", _text("a"), b"Ns\x92"), "keywords"),
        "sample_state": (_file(_call(sample), _int(1), b"b"), "attributes"),
        "bare_class": (_file(sample), "where data should be"),
        "instance_called": (_file(_call(_call(sample))), "calls a Sample"),
        "text_called": (_file(_call(_text("eval"), _text("1"))), "calls"),
        "list_state": (_file(b"]", _tuple(), b"b"), "state"),
        "array_appended": (_file(array, _int(1), b"a"), "appends"),
        "array_item": (_file(array, _int(0), _int(1), b"s"), "sets an item"),
        "array_state": (_file(array, b"}b"), "state"),
        "list_item": (_file(b"]", _int(0), _int(1), b"s"), "sets an item"),
        "encode": (_file(_call(_global("_codecs", "encode"), _text("a"), _text("rot13"))), "_codecs.encode"),
        "bytes": (_file(_call(_global("builtins", "bytes"), _int(10**15))), "bytes"),
        "reconstructor": (
            _file(_call(_global("copyreg", "_reconstructor"), sample, sample, b"N")),
            "reconstructs",
        ),
        "protocol": (b"\x80\xffN.", "protocol 255"),
        "trailing": (_file(b"N") + b"cposix\nsystem\n(S'true'\ntR.", "follow the end"),
        "number_key": (_file(b"}", _int(2**61 - 1), b"Ns"), "keys are text"),
        "deep_key": (_file(b"}", b")", b"\x85" * 100_000, b"Ns"), "keys are text"),
    }
    return {f"opcode_{name}": HostilePickle(*file) for name, file in files.items()}


def _dtype(code: str, *state: bytes) -> bytes:
    built = _tuple(*state) + b"b" if state else b""
    return _call(_global("numpy", "dtype"), _text(code), b"\x89", b"\x88") + built


def _draft(kind: bytes = b"cnumpy\nndarray\n") -> bytes:
    return _call(_global("numpy._core.multiarray", "_reconstruct"), kind, _tuple(_int(0)), b"C\x01b")


def _array(
    code: str = "f4",
    shape: tuple[int, ...] = (2,),
    content: bytes = b"C\x08" + bytes(8),
    fortran: bytes = b"\x89",
    memoize: bytes = b"",
) -> bytes:
    return _draft() + memoize + _tuple(_int(1), _tuple(*map(_int, shape)), _dtype(code), fortran, content) + b"b"


def _buffer(code: str, shape: tuple[int, ...], *more: bytes) -> bytes:
    extents = _tuple(*map(_int, shape))
    return _call(_global("numpy._core.numeric", "_frombuffer"), b"C\x08" + bytes(8), _dtype(code), extents, *more)


def _forged_arrays() -> dict[str, HostilePickle]:
    """Return pickles of arrays and data types with inconsistent parts."""
    plain_state = (_int(3), _text("<"), b"N", b"N", b"N", _int(-1), _int(-1), _int(0))
    scalar = _global("numpy._core.multiarray", "scalar")
    objects = b"](" + _text("a") + b"e"
    files = {
        "too_long": (_array(shape=(10**12,)), "8 bytes for an array"),
        "overflowing": (_array(shape=(2**62, 4)), "8 bytes for an array"),
        "negative": (_array(shape=(-2,)), "shape"),
        "many_axes": (_array(shape=(1,) * 60 + (2,)), "shape"),
        "no_shape": (_draft() + _tuple(_int(1), b"N", _dtype("f4"), b"\x89", b"C\x00") + b"b", "shape"),
        "empty_rows": (_array(shape=(10**12, 0), content=b"C\x00"), "rows without numbers"),
        "pointers": (_array("O8", (1,)), "object array"),
        "pointer_buffer": (_buffer("O8", (1,), _text("C")), "wrong arguments"),
        "pointer_scalar": (_call(scalar, _dtype("O8"), b"C\x08" + bytes(8)), "wrong arguments"),
        "object_count": (_array("O8", (10**9,), objects), "object array"),
        "object_order": (_array("O8", (1, 1), objects, fortran=b"\x88"), "object array"),
        "void": (_array("V8"), "data type V8"),
        "structure": (_array("i4,i4", (1,)), "data type"),
        "subarray": (_array("(1000000000,)f8"), "data type"),
        "date": (_array("M8", (1,)), "data type M8"),
        "complex": (_array("c8", (1,)), "data type c8"),
        "long_double": (_array("f16", (1,)), "data type f16"),
        "no_width": (_array("U0", (10**12,), b"C\x00"), "bytes for an array"),
        "no_characters": (_array("U2", (1,), b"C\x08" + b"\xff" * 8), "no characters"),
        "fields": (_dtype("f4", *plain_state[:4], b"}", *plain_state[5:]), "byte order"),
        "byte_order": (_dtype("f4", plain_state[0], _text("S"), *plain_state[2:]), "byte order"),
        "metadata": (_dtype("f4", *plain_state, b"}"), "byte order"),
        "bare_dtype": (_dtype("f4"), "where data should be"),
        "dtype_alone": (_call(_global("numpy", "dtype")), "data type"),
        "matrix": (_draft(_global("numpy", "matrix")), "numpy.matrix"),
        "kind": (_draft(b"cSample\nSample\n"), "reconstructs"),
        "constructed": (_call(_global("numpy", "ndarray"), _tuple(_int(10**12))), "numpy.ndarray"),
        "unfilled": (_draft(), "without content"),
        "short_scalar": (_call(scalar, _dtype("f8"), b"C\x01a"), "bytes for an array"),
        "order": (_buffer("f4", (2,), _text("X")), "memory order"),
        "axes": (_buffer("f4", (2, 1), _text("K"), _tuple(_int(0), _int(0))), "axes"),
        "no_bytes": (_array(content=_int(8)), "fills an array"),
        "self": (b"](" + _array("O8", (1,), b"]h\x00a", memoize=b"\x94") + b"e", "itself"),
    }  # fmt: skip
    return {f"array_{name}": HostilePickle(_file(data), expected) for name, (data, expected) in files.items()}


def _bombs() -> dict[str, HostilePickle]:
    """Return small pickles that would take much memory or time."""
    text, encode = _text("a" * 200_000), _global("_codecs", "encode")
    files = {
        "memo_binary": (_file(b"Nr\xff\xff\xff\x7f"), "memo entry"),
        "memo_text": (_file(b"Np99999999999\n"), "memo entry"),
        "bytes_8": (_file(b"\x8e" + struct.pack("<Q", 2**60)), "not a valid pickle"),
        "text_8": (_file(b"\x8d" + struct.pack("<Q", 2**63)), "not a valid pickle"),
        "bytearray_8": (_file(b"\x96" + struct.pack("<Q", 2**40)), "not a valid pickle"),
        "long_4": (_file(b"\x8b\xff\xff\xff\x7f"), "not a valid pickle"),
        "frame": (_file(b"\x95" + struct.pack("<Q", 2**62), b"N"), "a frame ends"),
        "frame_of_all": (_file(b"\x95" + struct.pack("<Q", 2**64 - 1), b"N"), "a frame ends"),
        "frame_by_a_byte": (_file(b"\x95" + struct.pack("<Q", 3), b"N"), "a frame ends"),
        "memo_long": (_file(b"Nr\xff\xff\xff\xff"), "memo entry"),
        "memo_negative": (_file(b"Np-1\n"), "memo entry"),
        "wide_integer": (_file(b"\x8b" + _sized(b"\x7f" * 100_000)), "integer of"),
        "long_integer": (b"L" + b"9" * 100_000 + b"L\n.", "not a valid pickle"),
        "laughs": (_file(b"]\x940", *map(_doubled_list, range(60)), b"h\x3c"), "nests containers"),
        "wide_laughs": (
            _file(_text("a" * 500), b"\x940](", b"h\x00" * 99, b"e\x940](", b"h\x01" * 999, b"e"),
            "repeats",
        ),
        "laughing_dicts": (_file(b"}\x940", *map(_doubled_dict, range(20)), b"h\x14"), "repeats"),
        "repeated_array": (
            _file(_array("u1", (10**6,), b"B" + _sized(bytes(10**6))), b"\x940](", b"h\x00" * 100, b"e"),
            "repeats",
        ),
        "repeated_encode": (
            _file(text, b"\x940](", (encode + _tuple(b"h\x00", _text("latin1")) + b"R") * 200, b"e"),
            "expand",
        ),
        "cycle": (_file(b"]\x94h\x00a"), "cycle"),
        "dict_cycle": (_file(b"}\x94", _text("a"), b"h\x00s"), "cycle"),
        "sample_cycle": (_file(_call(_global("Sample", "Sample")), b"\x94}", _text("a"), b"h\x00sb"), "cycle"),
        "deep_tuple": (_file(b")", b"\x85" * 50_000), "nests containers"),
        "deep_list": (_file(b"]" * 1000, b"a" * 999), "nests containers"),
        "marks": (_file(b"(" * 1_000_000), "unfinished"),
        "many_dicts": (_file(b"(", b"}" * 1_000_000, b"l"), "expand"),
    }
    return {f"bomb_{name}": HostilePickle(*file) for name, file in files.items()}


def _doubled_list(index: int) -> bytes:
    return b"](" + 2 * (b"h" + bytes([index])) + b"e\x940"


def _doubled_dict(index: int) -> bytes:
    reference = b"h" + bytes([index])
    return b"}(" + _text("a") + reference + _text("b") + reference + b"u\x940"


def _foreign() -> dict[str, HostilePickle]:
    """Return files that are not pickles. The expected messages name the remedy."""
    plain = pickle.dumps({"train": []})
    files = {
        "gzip": (gzip.compress(plain), "gunzip"),
        "bzip2": (bz2.compress(plain), "bunzip2"),
        "xz": (lzma.compress(plain), "unxz"),
        "zstd": (b"\x28\xb5\x2f\xfd\x00\x00", "unzstd"),
        "zip": (b"PK\x03\x04" + bytes(30), "unzip"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        "page": (b"<!DOCTYPE html><html></html>", "download failed"),
        "lz4": (b"\x04\x22\x4d\x18" + bytes(20), "unlz4"),
        **{f"zlib_{level}": (zlib.compress(plain, level), "zlib") for level in (1, 6, 9)},
    }
    return {f"foreign_{name}": HostilePickle(*file) for name, file in files.items()}


def _damaged() -> dict[str, HostilePickle]:
    """Return damaged pickles."""
    files = {
        "empty": b"", "truncated": pickle.dumps({"train": ["text"] * 50})[:-20], "no_stop": b"N", "only_stop": b".",
        "noise": bytes(range(255, 0, -1)), "unknown_opcode": b"\xff.", "underflow": b"a.", "mark_missing": b"t.",
        "mark_between": b"N(a.", "memo_missing": b"h\x05.", "odd_dict": b"(Nd.", "no_class": b"(o.",
        "two_values": b"NN.", "mark_left": b"(N.", "not_a_float": b"Fabc\n.", "not_an_integer": b"Iabc\n.",
        "not_text": b"X\x01\x00\x00\x00\xff.", "no_quotes": b"Sabc\n.", "bad_escape": b"S'\\x'\n.",
        "not_latin": _call(_global("_codecs", "encode"), _text("\u20ac"), _text("latin1")) + b".",
        "negative_length": b"\x8b\xff\xff\xff\xff.", "no_name": b"cos",
    }  # fmt: skip
    return {f"damaged_{name}": HostilePickle(data, "not a valid pickle") for name, data in files.items()}
