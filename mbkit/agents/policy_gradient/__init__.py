"""Policy-gradient learners, which learn from trajectories."""
