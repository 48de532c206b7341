"""What no run can do without before its first token, in one process: `python -m jobs.benchmarks.first_token DIR`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    from actors.cluster import connected
    from jobs.benchmarks import clinic
    from medcritical_ray.clinic.base import base_student_dir
    from medcritical_ray.config import SamplingConfig
    from medcritical_ray.engines.engine import Engine
    from medcritical_ray.rollouts import Request

    config = clinic.demo_config()
    with connected(config.cluster, Path(sys.argv[1])):
        engine = Engine(base_student_dir(), 0, config.engines)
        engine.generate([Request(prompt="?", seed=0)], SamplingConfig(max_tokens=1), 0)
