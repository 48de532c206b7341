"""Pairs in the words of the tests' tiny models, for trainings that need some."""

from medcritical_ray.records import PreferencePair


def pairs(num_rows: int) -> list[PreferencePair]:
    """Each prefers word 51 to word 52, and rejects texts of different lengths."""
    return [
        PreferencePair(
            iteration=1,
            question_id=f"q{n}",
            source="own",
            attempt=0,
            prompt=f" w{n} w{n + 1}",
            prefix="",
            chosen=f" w{n} w51",
            rejected=f" w{n} w52" + " w53" * (n % 3),
            rest="",
            chosen_version=0,
            rejected_version=0,
            reason="",
        )
        for n in range(num_rows)
    ]
