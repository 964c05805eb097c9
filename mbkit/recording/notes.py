"""What a run has to tell its user when it ends: whole sentences, each of them once."""

from collections.abc import Iterable


def sentence(text: str) -> str:
    """The text with a capital letter and one full stop."""
    text = text.strip()
    return text if not text else f"{text[0].upper()}{text[1:].rstrip('.')}."


def noted(notes: Iterable[str], *more: str) -> list[str]:
    """The notes and more of them, as sentences in the order in which they came, without repetitions."""
    return list(dict.fromkeys(sentence(note) for note in (*notes, *more) if note.strip()))
