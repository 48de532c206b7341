"""The config of a run: one frozen model per part, each field with its meaning and unit.

`Config` holds them all; `medcritical_ray.config_files` reads it from TOML.
"""

from medcritical_ray.config.data import (
    EndpointConfig,
    FreshStudentConfig,
    Price,
    QuestionsConfig,
    RunConfig,
    StudentConfig,
    TeacherConfig,
)
from medcritical_ray.config.part import Part
from medcritical_ray.config.resources import ClusterConfig, EnginesConfig, TrainersConfig
from medcritical_ray.config.rollouts import CorrectConfig, EvaluateConfig, GenerateConfig, PairsConfig, SamplingConfig
from medcritical_ray.config.root import Config
from medcritical_ray.config.serving import ServeConfig
from medcritical_ray.config.training import DpoConfig, GuardsConfig, LoraConfig, SftConfig

__all__ = [
    "ClusterConfig",
    "Config",
    "CorrectConfig",
    "DpoConfig",
    "EndpointConfig",
    "EnginesConfig",
    "EvaluateConfig",
    "FreshStudentConfig",
    "GenerateConfig",
    "GuardsConfig",
    "LoraConfig",
    "PairsConfig",
    "Part",
    "Price",
    "QuestionsConfig",
    "RunConfig",
    "SamplingConfig",
    "ServeConfig",
    "SftConfig",
    "StudentConfig",
    "TeacherConfig",
    "TrainersConfig",
]
