"""Training on the meta device, which has shapes but no values, under the rules of CUDA.

`OnMeta` takes the place of a GPU. It fails where the host would wait for one, and where an operation mixes devices:

- values read on the host: item, float(tensor), if tensor, tolist, numpy, and copies to the CPU;
- operations whose output shape depends on values: nonzero, masks as indices, masked_select, unique, repeat_interleave;
- copies to the device, except of pinned memory with non_blocking=True: torch.tensor(..., device=...), new_tensor, lists as
  indices, and .to(device) of ordinary memory;
- tensors of two devices in one operation. On CUDA, pointwise operations accept a CPU tensor without dimensions. It is
  refused here too, because the program needs none, and some operations copy it, which waits. The lengths of packed
  sequences are the exception: torch wants them on the CPU.

Values are read in one place, `joyful.devices.read_values`, which is counted and returns ones.

The meta device has no autocast. `_Autocast` casts the arguments as CUDA's autocast does, for the operations of this
program. The optimizers and the clipping take the fused and foreach kernels, as on CUDA.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from joyful import devices

META = torch.device("meta")

#: Operations that read values on the host, or whose output shape depends on values.
READS = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "bincount", "histc", "unique_dim",
        "unique_consecutive", "_unique", "_unique2", "repeat_interleave", "argwhere", "linalg_lstsq", "multinomial",
    )
)  # fmt: skip

#: Operations that copy one tensor.
COPIES = frozenset({"aten::_to_copy", "aten::copy_", "aten::copy", "aten::_copy_from"})

#: Operations that torch gives the lengths of packed sequences on the CPU, on every device.
OF_LENGTHS = frozenset(
    {"aten::_pack_padded_sequence", "aten::_pack_padded_sequence_backward", "aten::_pad_packed_sequence"}
)

#: Operations that take a mask as an index.
INDEXING = frozenset(
    {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
)


class OnMeta:
    """The rules of CUDA for the meta device. Use it as a context manager.

    Attributes:
        operations: Names of the operations on the device so far, such as "aten::mul".
        reads: Number of calls of `joyful.devices.read_values` so far.
        copies: Number of copies to the device so far, in training.
        training: Whether training has begun. Before, while the model and the data are built, ordinary memory may be copied
            to the device, and nothing is recorded.
    """

    def __init__(self) -> None:
        self.operations: set[str] = set()
        self.reads = self.copies = 0
        self.training = False
        self.pinned: set[int] = set()
        self.autocast: list[torch.dtype | None] = [None]
        self._stack = ExitStack()

    def __enter__(self) -> OnMeta:
        stack = self._stack.__enter__()
        for change in (
            mock.patch.object(devices, "read_values", self._read_values),
            mock.patch.object(torch, "autocast", self._autocast),
            mock.patch.object(torch._C, "_is_any_autocast_enabled", self._is_autocast_enabled),
            *_torch_kernels_of_cuda(),
            _Calls(self),
            _Operations(self),
        ):
            stack.enter_context(change)
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def _read_values(self, parts: Sequence[Tensor]) -> list[list[float]]:
        assert {part.device for part in parts} == {META}, "values of another device are read"
        torch.cat([part.double().flatten() for part in parts])  # what the function computes on the device
        self.reads += 1
        return [[1.0] * part.numel() for part in parts]

    @contextmanager
    def _autocast(self, device_type: str, dtype: torch.dtype = torch.bfloat16, enabled: bool = True) -> Iterator[None]:
        self.autocast.append((dtype if enabled else None) if device_type == META.type else self.autocast[-1])
        try:
            yield
        finally:
            self.autocast.pop()

    def _is_autocast_enabled(self) -> bool:
        return self.autocast[-1] is not None


def _torch_kernels_of_cuda() -> Iterator[Any]:
    """Yield changes of torch's own choices of kernels: those that it takes on CUDA, for the meta device."""
    for module, name in (
        ("torch.utils._foreach_utils", "_get_foreach_kernels_supported_devices"),
        ("torch.optim.optimizer", "_get_fused_kernels_supported_devices"),
    ):
        place = importlib.import_module(module)
        supported: list[str] = [*getattr(place, name)(), META.type]
        assert "cuda" in supported
        yield mock.patch.object(place, name, functools.partial(list, supported))


class _Operations(TorchDispatchMode):
    """Checks and records each operation of torch, forward and backward."""

    def __init__(self, rules: OnMeta) -> None:
        super().__init__()
        self._rules = rules

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _consists_of_others(func):  # without gradients, such an operation arrives whole
            with self:
                return func.decompose(*args, **kwargs)
        name = func._schema.name
        tensors = list(_tensors((*args, *kwargs.values())))
        target = kwargs.get("device")
        used = {x.device for x in tensors} | ({torch.device(target)} if target is not None else set())
        if META in used:
            self._check(name, tensors, used, args, kwargs)
            if self._rules.training:
                self._rules.operations.add(name)
            return _result(func, args, kwargs)
        return func(*args, **kwargs)

    def _check(self, name: str, tensors: list[Tensor], used: set[torch.device], args: Any, kwargs: Any) -> None:
        assert name not in READS, f"{name} reads the device from the host"
        if name in INDEXING:
            masks = [i for i in args[1] if isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{name} with a mask reads the device from the host"
        if len(used) == 1 or name in OF_LENGTHS:
            return
        if name in COPIES:
            self._check_copy(name, args, kwargs)
            return
        shapes = ", ".join(f"{tuple(x.shape)} on {x.device}" for x in tensors)
        raise AssertionError(f"{name} mixes devices: {shapes}")

    def _check_copy(self, name: str, args: Any, kwargs: Any) -> None:
        source = args[0] if name == "aten::_to_copy" else args[1]
        assert source.device != META, f"{name} copies from the device, which reads it from the host"
        non_blocking = kwargs.get("non_blocking") or (name != "aten::_to_copy" and len(args) > 2 and args[2])
        is_pinned = source.untyped_storage().data_ptr() in self._rules.pinned
        if not self._rules.training:
            return
        assert non_blocking, f"{name} copies without non_blocking=True, which waits for the device"
        assert is_pinned, f"{name} copies ordinary memory to the device, which waits for it"
        self._rules.copies += 1


@functools.cache
def _consists_of_others(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


#: Operation and arguments -> shape, strides and type of its result. Computing them takes most of the time.
_RESULTS: dict[Any, tuple[Any, Any, torch.dtype]] = {}


def _result(func: Any, args: Any, kwargs: Any) -> Any:
    """Return the result of an operation, from the same operation on tensors of the same shapes if there was one."""
    if not _makes_one_tensor(func):
        return func(*args, **kwargs)
    key = func, _signature(args), _signature(tuple(kwargs.items()))
    known = _RESULTS.get(key)
    if known is None:
        result = func(*args, **kwargs)
        if result.device == META:
            _RESULTS[key] = result.shape, result.stride(), result.dtype
        return result
    shape, strides, dtype = known
    return torch.empty_strided(shape, strides, dtype=dtype, device=META)


@functools.cache
def _makes_one_tensor(func: Any) -> bool:
    """Return whether the result is one tensor that shares no memory with the arguments."""
    schema = func._schema
    shares = any(x.alias_info is not None for x in (*schema.arguments, *schema.returns))
    return not shares and [str(x.type) for x in schema.returns] == ["Tensor"]


def _signature(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        (x.shape, x.stride(), x.dtype, x.device)
        if isinstance(x, Tensor)
        else _signature(x)
        if isinstance(x, list | tuple)
        else (type(x), x)
        for x in values
    )


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


#: Calls of Python that make a tensor from values on the host.
_FROM_VALUES = {torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, Tensor.new_tensor}
_INDEX = {Tensor.__getitem__, Tensor.__setitem__}


class _Calls(TorchFunctionMode):
    """Checks what no operation shows: values that become tensors of the device. Applies autocast and pinned memory."""

    def __init__(self, rules: OnMeta) -> None:
        super().__init__()
        self._rules = rules

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.pin_memory:
            self._rules.pinned.add(args[0].untyped_storage().data_ptr())
            return args[0]
        if func in _INDEX and args[0].device == META:
            lists = [
                i for i in pytree.tree_leaves(args[1], is_leaf=lambda x: isinstance(x, list)) if isinstance(i, list)
            ]
            assert not lists, "a list as an index is copied to the device, which waits for it"
        dtype = self._rules.autocast[-1]
        if dtype is not None:
            args, kwargs = _cast(func, dtype, args, kwargs)
        result = func(*args, **kwargs)
        if func in _FROM_VALUES and result.device == META:
            raise AssertionError(f"{func.__name__} copies values to the device, which waits for it")
        return result


#: What CUDA's autocast computes in the lower precision, and what in float32, of the functions that this program calls
#: (torch's documentation, "CUDA Ops that can autocast").
LOWER = {
    "linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "mv", "einsum",
    "scaled_dot_product_attention", "lstm", "gru",
}  # fmt: skip
FLOAT32 = {
    "exp", "log", "log1p", "pow", "layer_norm", "softmax", "log_softmax", "logsumexp", "logaddexp", "sum", "norm", "normalize",
    "nll_loss", "cross_entropy", "binary_cross_entropy_with_logits", "mse_loss", "smooth_l1_loss",
}  # fmt: skip


def _cast(func: Callable[..., Any], dtype: torch.dtype, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the arguments of a function under autocast to `dtype`."""
    name = getattr(func, "__name__", "")
    if (name not in LOWER and name not in FLOAT32) or "out" in kwargs:
        return args, kwargs
    to = dtype if name in LOWER else torch.float32

    def cast(x: Any) -> Any:
        is_cast = isinstance(x, Tensor) and x.device == META and x.dtype in (torch.float32, torch.bfloat16)
        return x.to(to) if is_cast else x

    return pytree.tree_map(cast, (args, kwargs))
