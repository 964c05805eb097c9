"""Exact and sampled reinforcement learning on finite MDPs in float64 NumPy, without torch."""
