"""The traceback of an exception in the user's code, without the frames of mbkit and Gymnasium that lead there."""

import traceback
from importlib.util import find_spec
from pathlib import Path

SKIPPED = ("mbkit", "gymnasium", "importlib")  # packages whose frames come before those of the user's code


def user_traceback(error: BaseException) -> str:
    """The traceback as Python prints it, with those of its causes."""
    whole = traceback.TracebackException.from_exception(error)
    folders = tuple(f"{Path(spec.origin).parent}/" for spec in map(find_spec, SKIPPED) if spec and spec.origin)
    link: traceback.TracebackException | None = whole
    while link is not None:
        frames, first = list(link.stack), 0
        while first < len(frames) - 1 and frames[first].filename.startswith((*folders, "<frozen importlib")):
            first += 1
        link.stack = traceback.StackSummary.from_list(frames[first:])
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "".join(whole.format()).rstrip()
