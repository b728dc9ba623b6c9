"""The JOYFUL model. `joyful` is the model, from top to bottom; `kernels` holds its fast operations."""
