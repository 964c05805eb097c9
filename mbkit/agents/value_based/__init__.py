"""Learners of the values of discrete actions."""
