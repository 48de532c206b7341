"""What the program is measured by, a module each: see `jobs.benchmarks.figures.Benchmark`.

A module imports what is heavy when it measures.
"""

MODULES = {
    1: "rollout",
    2: "iteration",
    3: "overlap",
    4: "weights",
    5: "dpo",
    6: "sft",
    7: "scheduling",
    8: "pairing",
    9: "start",
    10: "gpu_training",
    11: "gpu_weights",
}
"""By the numbers of their rows."""
