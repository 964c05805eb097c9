"""Executable experiments on the mathematics: each checks claims and writes tables and a figure."""

from importlib import import_module
from pkgutil import iter_modules

from mbkit.theory.experiment import Claim, Findings, Setting, Table, TheoryExperiment, experiment, find, make_folder, registered, save

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Claim", "Findings", "Setting", "Table", "TheoryExperiment", "experiment", "find", "make_folder", "registered", "save"]
