"""Exact and sampled reinforcement learning on finite MDPs: float64 NumPy, no torch."""
