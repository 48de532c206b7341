"""A plan as lines for a person."""

import math
from collections.abc import Iterator

from medcritical_ray.planning.gpu_memory import EngineMemory
from medcritical_ray.planning.placement import Claim, written
from medcritical_ray.planning.plan import Plan, memory_terms


def describe(plan: Plan) -> str:
    """What the run will need, one line per thing, its name first; lines of GPUs only where GPUs are used."""
    rows = plan.rows
    lines = {
        "model": _model(plan),
        "iterations": f"{plan.num_iterations}",
        "rows per iteration": f"{rows.num_questions:,} questions, {rows.num_attempts:,} attempts, "
        f"at most {rows.num_corrections:,} corrections and {rows.num_pairs:,} pairs",
        "engines": f"{plan.num_engines}{_where(plan.engines_claim)}",
        "training workers": f"{plan.num_workers}{_where(plan.trainers_claim)}",
        "CPUs": f"{plan.num_cpus:g}",
        "GPUs": f"{plan.num_gpus}",
        "memory": f"{plan.memory_gib:.1f} GiB: {memory_terms(plan)}",
        "disk": f"{plan.disk_gib:.1f} GiB",
        **dict(_gpu_lines(plan)),
    }
    return "\n".join(f"{name:22}{value}" for name, value in lines.items())


def describe_cache(engine: EngineMemory | None, gpu_memory_gib: float | None) -> Iterator[str]:
    """What an engine's share of a GPU of this size leaves for keys and values; no line where that is not known."""
    if not engine or not engine.sequence_gib or not gpu_memory_gib:
        return
    num_sequences = engine.num_sequences_on(gpu_memory_gib)
    cache_gib = num_sequences * engine.sequence_gib
    yield (
        f"{'KV cache there':22}{engine.gpu_share:g} of {gpu_memory_gib:.1f} GiB leaves {cache_gib:.1f} GiB: "
        f"{num_sequences * engine.max_model_len:,.0f} tokens, {num_sequences:.0f} sequences of "
        f"{engine.max_model_len:,} tokens (engines.max_num_seqs = {engine.max_num_seqs})"
    )


def _where(claim: Claim) -> str:
    return f", on nodes labelled {written(claim.labels)}" if claim.labels else ""


def _model(plan: Plan) -> str:
    size, by_config = plan.size, plan.size.architecture
    text = f"{size.num_parameters:,} parameters" if size.num_parameters else "parameters unknown"
    if by_config and by_config.num_parameters != size.num_parameters:
        text += f", though its config.json makes {by_config.num_parameters:,}"
    return text


def _gpu_lines(plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.engine:
        yield "GPU, engine", _engine(plan.engine)
        if plan.engine.sequence_gib:
            yield "KV cache", _cache(plan.engine)
    if plan.trainer:
        yield "GPU, training worker", f"{plan.trainer.needed_gib:.1f} GiB: {_terms(plan.trainer.at_peak)}"
    if not plan.gpu_uses:
        return
    if plan.size.untold:
        yield "GPU memory unknown", f"{plan.size.untold}: no activations, logits, keys and values above"
    least = plan.least_gpu_gib()
    if not math.isinf(least):
        yield "GPU memory", f"at least {least:.1f} GiB per GPU{_for_all_sequences(plan)}"


def _for_all_sequences(plan: Plan) -> str:
    if not plan.engine or not plan.engine.sequence_gib:
        return ""
    number = plan.engine.max_num_seqs
    return f"; {plan.least_gpu_gib(number):.1f} GiB to write {number} sequences of full length at the same time"


def _engine(engine: EngineMemory) -> str:
    terms = {"weights": engine.weights_gib, "adapter": engine.adapter_gib, "work": engine.working_gib}
    return f"{engine.needed_gib(0):.1f} GiB and the KV cache: {_terms(terms)}"


def _cache(engine: EngineMemory) -> str:
    per_token = f"{engine.kv_bytes_per_token / 1024:.1f} KiB per token"
    return f"{per_token}, {engine.sequence_gib:.2f} GiB per {engine.max_model_len:,} tokens"


def _terms(terms: dict[str, float]) -> str:
    return ", ".join(f"{name} {gib:.1f}" for name, gib in terms.items() if gib)
