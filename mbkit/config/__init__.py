"""From presets and `key=value` options to one typed, validated experiment."""

from mbkit.config.compose import (
    REGISTRIES,
    check_actions,
    compose,
    from_dict,
    to_yaml,
)
from mbkit.config.finetuning import continuing
from mbkit.config.ranges import check_range, range_text, type_text
from mbkit.config.reading import parse_overrides, read_yaml
from mbkit.config.regimes import algorithm
from mbkit.config.resumption import parse_resumption
from mbkit.config.schema import (
    GROUPS,
    CheckpointConfig,
    EvalConfig,
    Experiment,
    FinetuneLoop,
    FinetuneModelLoop,
    FreshLoop,
    ModelLoop,
    OfflineLoop,
    OldTrajectoryLoop,
    OnlineLoop,
    Part,
    PlanLoop,
    ReplayLoop,
    StoringLoop,
    TrajectoryLoop,
)
from mbkit.config.seeds import taken_seeds

__all__ = [
    "GROUPS",
    "REGISTRIES",
    "CheckpointConfig",
    "EvalConfig",
    "Experiment",
    "FinetuneLoop",
    "FinetuneModelLoop",
    "FreshLoop",
    "ModelLoop",
    "OfflineLoop",
    "OldTrajectoryLoop",
    "OnlineLoop",
    "Part",
    "PlanLoop",
    "ReplayLoop",
    "StoringLoop",
    "TrajectoryLoop",
    "algorithm",
    "check_actions",
    "check_range",
    "compose",
    "continuing",
    "from_dict",
    "parse_overrides",
    "parse_resumption",
    "range_text",
    "read_yaml",
    "taken_seeds",
    "to_yaml",
    "type_text",
]
