"""Lists as they are typed: of values, divided by commas, and of seeds, 1..5."""

import re
from collections.abc import Sequence

from mbkit.errors import UserError

SPAN = re.compile(r"(\d+)\.\.(\d+)")
LONGEST_SPAN = 1_000_000
OPENING, CLOSING = "[{(", "]})"


def split_list(text: str) -> list[str]:
    """ "1,[2,3],'a,b'" -> ["1", "[2,3]", "'a,b'"]: the parts between commas that stand in no brackets and no quotes."""
    parts, begin, depth, quote = [], 0, 0, ""
    for at, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'" and text[begin:at].strip("[{( ") == "":
            quote = sign  # an apostrophe inside a word quotes nothing
        elif sign in OPENING:
            depth += 1
        elif sign in CLOSING:
            depth -= 1
        elif sign == "," and depth <= 0:
            parts.append(text[begin:at])
            begin = at + 1
    return [*parts, text[begin:]]


def parse_seeds(text: str) -> list[int]:
    """ "1..3,7" -> [1, 2, 3, 7]; UserError where it is no list of different seeds."""
    seeds: list[int] = []
    for part in text.split(","):
        span = SPAN.fullmatch(part.strip())
        if span is not None and int(span[1]) > int(span[2]):
            raise UserError(f"--seeds {text}: expected the smaller number first, {span[2]}..{span[1]}; came {part.strip()}")
        if span is not None and int(span[2]) - int(span[1]) < LONGEST_SPAN:
            seeds += range(int(span[1]), int(span[2]) + 1)
        elif re.fullmatch(r"\d{1,10}", part.strip()):
            seeds.append(int(part))
        else:
            raise UserError(f"--seeds {text or repr('')}: expected whole numbers and ranges of them, such as 1..5 or 1,2,7; came {part!r}")
    return checked_seeds(seeds, text)


def checked_seeds(seeds: Sequence[int], text: object) -> list[int]:
    """The seeds; UserError where there is none, one of them twice, or one that no run can have."""
    if not seeds or len(set(seeds)) < len(seeds) or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds):
        raise UserError(f"--seeds {text}: expected different whole numbers below 2^32, such as 1..5 or 1,2,7")
    return list(seeds)
