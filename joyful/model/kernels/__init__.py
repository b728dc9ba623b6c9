"""Operations that replace plain PyTorch for speed or memory.

Each module has a plain form of its operation, to which its test compares it, and the figure that pays for it.
``python -m benchmarks.kernels`` measures these figures: a training step with each plain form in place of the kernel.
"""
