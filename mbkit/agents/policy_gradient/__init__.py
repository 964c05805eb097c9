"""Learners from trajectories, by the gradient of the policy."""
