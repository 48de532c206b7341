"""Imports go down only: jobs, actors, the heavy part of medcritical_ray, its pure part."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY_PREFIXES = (
    "medcritical_ray.chat",
    "medcritical_ray.clinic.student",
    "medcritical_ray.clinic.train_base",
    "medcritical_ray.context",
    "medcritical_ray.teaching.endpoint",
    "medcritical_ray.engines.draws",
    "medcritical_ray.engines.engine",
    "medcritical_ray.engines.nccl",
    "medcritical_ray.export.directory",
    "medcritical_ray.harness.utils",
    "medcritical_ray.literal",
    "medcritical_ray.opening",
    "medcritical_ray.report",
    "medcritical_ray.serving.app",
    "medcritical_ray.serving.conversations",
    "medcritical_ray.serving.engine",
    "medcritical_ray.serving.requests",
    "medcritical_ray.serving.service",
    "medcritical_ray.serving.tokenizer",
    "medcritical_ray.serving.worker",
    "medcritical_ray.student",
    "medcritical_ray.telling.trackers",
    "medcritical_ray.training",
    "medcritical_ray.engines.vllm_settings",
    "medcritical_ray.engines.weights",
)
LIGHT_LIBRARIES = {
    "huggingface_hub",
    "numpy",
    "pyarrow",
    "pydantic",
    "pydantic_core",
    "rapidfuzz",
    "scipy",
    "tomli_w",
    "yaml",
}


def modules_of(package: str) -> dict[str, Path]:
    """Dotted names and files of a package's modules."""
    files = (ROOT / package).rglob("*.py")
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports_of(file: Path) -> set[str]:
    """Dotted names of all that a file imports, also inside functions; `from a import b` counts as `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages_of(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(file)}


def is_heavy(name: str) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in HEAVY_PREFIXES)


MEDCRITICAL_RAY = modules_of("medcritical_ray")
PURE = {name: file for name, file in MEDCRITICAL_RAY.items() if not is_heavy(name)}


@pytest.mark.parametrize("name", PURE)
def test_the_pure_part_imports_only_itself_and_light_libraries(name: str):
    allowed = sys.stdlib_module_names | LIGHT_LIBRARIES | {"medcritical_ray"}
    assert packages_of(PURE[name]) - allowed == set()
    assert [imported for imported in imports_of(PURE[name]) if is_heavy(imported)] == []


def test_what_grades_in_the_harness_imports_nothing_of_the_project():
    assert packages_of(MEDCRITICAL_RAY["medcritical_ray.harness.utils"]) - sys.stdlib_module_names == {"datasets"}


@pytest.mark.parametrize("name", MEDCRITICAL_RAY)
def test_medcritical_ray_imports_nothing_from_above_and_no_ray(name: str):
    assert packages_of(MEDCRITICAL_RAY[name]) & {"actors", "jobs", "ray"} == set()


@pytest.mark.parametrize("name", modules_of("medcritical_ray/training"))
def test_training_knows_no_clinic(name: str):
    imported = imports_of(modules_of("medcritical_ray/training")[name])
    assert [each for each in imported if each.startswith("medcritical_ray.clinic")] == []


@pytest.mark.parametrize("name", modules_of("actors"))
def test_actors_import_no_jobs(name: str):
    assert "jobs" not in packages_of(modules_of("actors")[name])


def test_an_import_inside_a_function_is_seen(tmp_path: Path):
    (tmp_path / "module.py").write_text("def f():\n    from torch import nn\n    import ray.data\n")
    assert imports_of(tmp_path / "module.py") == {"torch.nn", "ray.data"}


@pytest.mark.parametrize("name", modules_of("tests/unit"))
def test_unit_tests_start_no_actors(name: str):
    assert packages_of(modules_of("tests/unit")[name]) & {"actors", "ray", "vllm"} == set()
