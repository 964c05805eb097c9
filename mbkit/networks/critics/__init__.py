"""Architectures of critics by name, one file each; importing the package registers them all.

Each is a class of E networks at once, made from (members, sizes, form): the sizes are those of input, hidden layers and output, `form` is a
`CriticForm`. Its `forward(x, fixed, members)` is that of `EnsembleMLP`. Optional are `joint(x, learn, wanted)`, the outputs of the wanted
rows by the statistics of all, where they are normalised by statistics of a batch; `project_()`, called after every step of the
optimizer; and the attribute `normalizes_obs`, where observations must come normalised.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)
