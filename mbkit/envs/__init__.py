"""Environments, by name or a user's, and what is known of a task. Only this package reads `info`, autoreset and time limits."""

from mbkit.envs.environment import Environment, EnvStep, NoRenderer, wrap
from mbkit.envs.known import knowledge_notes, task_knowledge
from mbkit.envs.make import available, make, names

__all__ = ["EnvStep", "Environment", "NoRenderer", "available", "knowledge_notes", "make", "names", "task_knowledge", "wrap"]
