"""The forward pass seen from the GPU: passes, layers, clusters of layers and the kernels of one layer."""
