"""Stored experience: replay buffer of one-step rows and sources that draw from it, trajectories, model transitions."""
