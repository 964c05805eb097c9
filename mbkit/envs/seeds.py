"""Seeds as tasks take them: some hand theirs to generators that know no more than 31 bits."""

import numpy as np

from mbkit.errors import UserError

LIMIT = 2**31


def task_seed(seed: int) -> int:
    """A seed below 2**31: the seed itself where it is, else one in the upper half of them, far from the small ones that people choose."""
    if seed < 0:
        raise UserError(f"seed={seed}: expected an integer >= 0")
    if seed < LIMIT:
        return int(seed)
    return LIMIT // 2 + int(np.random.SeedSequence(int(seed)).generate_state(1)[0]) % (LIMIT // 2)


def task_seeds(seed: int | None, count: int) -> list[int | None]:
    """Seeds of `count` environments: environment i has that of seed + i; None for all where `seed` is None."""
    return [None if seed is None else task_seed(seed + i) for i in range(count)]
