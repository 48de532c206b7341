"""Prints the tables of docs/scaling.md: `python tools/scaling.py`."""

from jobs.benchmarks.gpu_training import ARCHITECTURE
from medcritical_ray.planning.architecture import architecture_of
from medcritical_ray.planning.scaling import Layout, Rates, Work, cost_of

QWEN_7B = architecture_of({"model_type": "qwen2", **ARCHITECTURE})
assert QWEN_7B is not None
PARAMETERS = QWEN_7B.num_parameters
ADAPTER_BYTES = 4 * QWEN_7B.num_adapter_parameters(32, None)
"""Of rank 32 on all linear layers, in float32, as PEFT saves what was trained."""
QUESTIONS, ATTEMPTS = 54_497, 8
WRONG, CHECKED = 0.35, 0.3
"""Shares: of attempts that are wrong and repaired four times, and of right ones that are checked four times."""
TRAINING_FLOPS_PER_TOKEN = 8 * PARAMETERS
"""An adapter's forward and backward pass with recomputed layers (two each), and the reference's forward (two)."""
FLOPS_PER_S = 0.4 * 989e12
"""Of an H100 in bfloat16 (its data sheet), at the two fifths that trainers of such models reach."""
TRAINED_TOKENS_PER_S = FLOPS_PER_S / TRAINING_FLOPS_PER_TOKEN

WORK = Work(
    num_questions=QUESTIONS,
    num_attempts=QUESTIONS * ATTEMPTS,
    attempt_tokens=250,
    num_corrections=round(QUESTIONS * ATTEMPTS * 4 * (WRONG + (1 - WRONG) * CHECKED)),
    correction_tokens=200,
    num_pairs=100_000,
    pair_tokens=850,
    num_epochs=1,
    num_evaluated=6_811 + 1_000,
    num_checked=(6_811 + 1_000) // 2,
    policy_bytes=ADAPTER_BYTES,
)
RATES = Rates(
    written_tokens_per_s=8_000,
    trained_tokens_per_s=TRAINED_TOKENS_PER_S,
    attempts_per_s=6_000,
    paired_questions_per_s=1_300,
    link_bytes_per_s=1.2e9,
    training_start_s=90,
    gpu_hour_price=3.0,
)
LAYOUTS = (
    Layout(num_gpus=1, num_engines=1, num_workers=1, num_machines=1),
    Layout(num_gpus=8, num_engines=4, num_workers=4, num_machines=1),
    Layout(num_gpus=64, num_engines=32, num_workers=32, num_machines=8),
    Layout(num_gpus=512, num_engines=480, num_workers=32, num_machines=64),
)


def main() -> None:
    costs = {layout.num_gpus: cost_of(WORK, RATES, layout) for layout in LAYOUTS}
    print("| GPUs | " + " | ".join(f"{num}" for num in costs) + " |")
    print("|---|" + "---|" * len(costs))
    for phase in next(iter(costs.values())).seconds:
        print(f"| {phase}, s | " + " | ".join(f"{cost.seconds[phase]:,.0f}" for cost in costs.values()) + " |")
    for name, tell in ROWS.items():
        print(f"| {name} | " + " | ".join(map(tell, costs.values())) + " |")


ROWS = {
    "**all, h**": lambda cost: f"**{cost.total_s / 3600:.2f}**",
    "price, $": lambda cost: f"{cost.price:,.0f}",
    "moved, GB": lambda cost: f"{cost.bytes_moved / 1e9:.1f}",
    "longest": lambda cost: cost.bottleneck,
}

if __name__ == "__main__":
    main()
