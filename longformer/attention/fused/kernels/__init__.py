"""The Triton kernels themselves. Only `fused.launch` starts them."""
