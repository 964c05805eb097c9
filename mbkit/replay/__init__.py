"""Stored experience: replay of one-step rows and the views learners want of it, trajectories, model rollouts."""
