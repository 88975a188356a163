"""The operators for NVIDIA's GPUs, in Triton; imported where one of them is called."""
