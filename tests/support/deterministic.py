"""The operations without a deterministic CUDA kernel, read from the documentation of the installed torch."""

from __future__ import annotations

import re

import torch

#: Name in the documentation of torch.use_deterministic_algorithms (2.13) -> operations that run its CUDA kernel.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "torch.nn.AvgPool3d": ("avg_pool3d_backward",),
    "torch.nn.AdaptiveAvgPool2d": ("_adaptive_avg_pool2d_backward",),
    "torch.nn.AdaptiveAvgPool3d": ("_adaptive_avg_pool3d_backward",),
    "torch.nn.AdaptiveMaxPool2d": ("adaptive_max_pool2d_backward",),
    "torch.nn.FractionalMaxPool2d": ("fractional_max_pool2d_backward",),
    "torch.nn.FractionalMaxPool3d": ("fractional_max_pool3d_backward",),
    "torch.nn.MaxUnpool1d": ("max_unpool2d",),
    "torch.nn.MaxUnpool2d": ("max_unpool2d",),
    "torch.nn.MaxUnpool3d": ("max_unpool3d",),
    "torch.nn.functional.interpolate": (
        "upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward",
        "upsample_trilinear3d_backward", "_upsample_bilinear2d_aa_backward", "_upsample_bicubic2d_aa_backward",
    ),
    "torch.nn.ReflectionPad1d": ("reflection_pad1d_backward",),
    "torch.nn.ReflectionPad2d": ("reflection_pad2d_backward",),
    "torch.nn.ReflectionPad3d": ("reflection_pad3d_backward",),
    "torch.nn.NLLLoss": ("nll_loss_forward", "nll_loss2d_forward"),
    "torch.nn.CTCLoss": ("_ctc_loss_backward",),
    "torch.nn.EmbeddingBag": ("_embedding_bag_dense_backward",),
    "torch.Tensor.put_": ("put", "put_"),
    "torch.histc": ("histc",),
    "torch.bincount": ("bincount",),
    "torch.median": ("median",),
    "torch.nn.functional.grid_sample": ("grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    "torch.cumsum": ("cumsum", "cumsum_"),
    "torch.Tensor.scatter_reduce": ("scatter_reduce", "scatter_reduce_"),
    "torch.Tensor.resize_": ("resize_",),
}  # fmt: skip

#: Operation of the list that the program uses -> why it is deterministic there.
ALLOWED = {
    "nll_loss_forward": "only nll_loss2d, the loss of images, adds atomically; for (N, C) one block adds in a fixed order "
    "(ATen/native/cuda/Loss.cu)",
}


def documented() -> set[str]:
    """Return the names that the documentation lists as raising an error with deterministic algorithms."""
    text = torch.use_deterministic_algorithms.__doc__ or ""
    start, end = text.index("operations will throw a"), text.index("In addition, several operations")
    return set(re.findall(r"\* :(?:class|func):`([\w.]+)`", text[start:end]))


def without_deterministic_kernel() -> set[str]:
    """Return the names of these operations, such as "aten::median"."""
    return {f"aten::{name}" for names in OPERATIONS.values() for name in names}
