"""Numbers, times and YAML as a page shows them."""

import math
import re
from collections.abc import Iterable

from markupsafe import Markup, escape

TOKEN = re.compile(
    r"(?P<comment>(?:^|(?<=\s))#.*$)|(?P<key>[\w./-]+(?=:(?:\s|$)))|(?P<text>'[^'\n]*'|\"[^\"\n]*\")"
    r"|(?P<word>\b(?:true|false|null)\b)|(?P<num>(?<![\w.])-?\d[\d_]*\.?\d*(?:[eE][+-]?\d+)?(?![\w.]))",
    re.MULTILINE,
)


def num(value: float | None, digits: int = 4) -> str:
    """A number as 12 345, 987.6 or 0.0123; a dash where it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == int(value) or abs(value) >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}" if abs(value) < 1 else f"{value:.{max(0, digits - 1 - int(math.log10(abs(value))))}f}"
    return text.replace(",", "\u202f").replace("-", "\u2212")


def duration(seconds: float) -> str:
    """A time as 41 s, 6 min 20 s or 3 h 05 min."""
    if not math.isfinite(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers in order, three or more in a row as a range: 1, 3, 11 to 15."""
    rows: list[list[int]] = []
    for n in sorted(numbers):
        if rows and n == rows[-1][-1] + 1:
            rows[-1].append(n)
        else:
            rows.append([n])
    return ", ".join(f"{row[0]} to {row[-1]}" if len(row) > 2 else ", ".join(map(str, row)) for row in rows)


def highlight(text: str) -> Markup:
    """YAML as HTML, with its keys, numbers, constants, strings and comments marked for colours."""
    parts, at = [], 0
    for match in TOKEN.finditer(text):
        parts += [escape(text[at : match.start()]), Markup("<i class={}>{}</i>").format(match.lastgroup, match.group())]
        at = match.end()
    return Markup("").join([*parts, escape(text[at:])])
