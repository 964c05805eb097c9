"""mbkit: model-based reinforcement learning on PyTorch and MuJoCo."""
