"""From presets and `key=value` options to one typed, validated experiment."""

from mbkit.config.compose import (
    REGISTRIES,
    check_range,
    compose,
    config_root,
    from_dict,
    parse_overrides,
    range_words,
    read_yaml,
    to_yaml,
    type_words,
)
from mbkit.config.schema import GROUPS, CheckpointConfig, EvalConfig, Experiment, LoopConfig, Options, Part

__all__ = [
    "GROUPS",
    "REGISTRIES",
    "CheckpointConfig",
    "EvalConfig",
    "Experiment",
    "LoopConfig",
    "Options",
    "Part",
    "check_range",
    "compose",
    "config_root",
    "from_dict",
    "parse_overrides",
    "range_words",
    "read_yaml",
    "to_yaml",
    "type_words",
]
