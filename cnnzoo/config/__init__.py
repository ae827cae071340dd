"""What a run is made of, read from YAML and overridden from the command line."""

from cnnzoo.config.parser import Parser
from cnnzoo.config.reading import Overrides, dump, parser, read
from cnnzoo.config.sections import (
    AugmentConfig,
    Config,
    DataConfig,
    EnsembleConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    PhaseConfig,
    ProbeConfig,
    ScheduleConfig,
    TrainConfig,
    short_name,
    tagged,
)

__all__ = [
    "AugmentConfig",
    "Config",
    "DataConfig",
    "EnsembleConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "Overrides",
    "Parser",
    "PhaseConfig",
    "ProbeConfig",
    "ScheduleConfig",
    "TrainConfig",
    "dump",
    "parser",
    "read",
    "short_name",
    "tagged",
]
