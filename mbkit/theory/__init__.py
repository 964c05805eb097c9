"""The mathematics as running code: experiments that check a claim, each leaving a table and a figure."""

from importlib import import_module
from pkgutil import iter_modules

from mbkit.theory.experiment import Claim, Experiment, Findings, Setting, Table, experiment, find, make_folder, registered, save

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Claim", "Experiment", "Findings", "Setting", "Table", "experiment", "find", "make_folder", "registered", "save"]
