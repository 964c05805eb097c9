"""Every option has a help that can be read alone."""

import re

import pytest

from mbkit import registry
from mbkit.config.describe import comments
from mbkit.config.schema import LOOPS, CheckpointConfig, EvalConfig, Options

ENTRIES = [e for kind in (registry.agents, registry.recipes, registry.dynamics, registry.planners) for e in kind]
CLASSES = {cls.__name__: cls for cls in (Options, EvalConfig, CheckpointConfig, *LOOPS, *(e.config for e in ENTRIES))}
FRAGMENT = re.compile(r"^(of|in|and|to|for|as|by|the same|its|with|from|or|at|on|than)\b", re.IGNORECASE)


@pytest.mark.parametrize("name", CLASSES)
def test_comments_are_noun_phrases_of_at_least_two_words(name):
    cls = CLASSES[name]
    helps = comments(cls)
    for field in cls.__dataclass_fields__:
        if field == "algo":
            continue
        text = helps.get(field, "")
        head = re.split(r"[;:.(,]", text)[0].strip()
        assert len(head.split()) >= 2, f"{name}.{field}: {text!r}"
        assert not FRAGMENT.match(text), f"{name}.{field}: {text!r}"


@pytest.mark.parametrize("name", CLASSES)
def test_comments_cover_every_field(name):
    assert set(CLASSES[name].__dataclass_fields__) - {"algo"} <= set(comments(CLASSES[name]))
