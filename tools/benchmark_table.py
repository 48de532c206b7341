"""Prints rows of `medcritical benchmark` as the table of docs/results.md: `tools/benchmark_table.py FILE.json`."""

import sys
from pathlib import Path
from typing import Any

from jobs.benchmark import rows_kept_in, told


def main(file: Path) -> None:
    print("| row | figure | against | ours | peer | ratio | target | met | repeats |")
    print("|---|---|---|---|---|---|---|---|---|")
    for number, row in sorted(rows_kept_in(file).items()):
        own = {**row, "met": row["met_itself"]}
        for figure in (own, *row["also"]):
            print("| " + " | ".join(map(str, (number, *_cells(figure)))) + " |")


def _cells(figure: dict[str, Any]) -> tuple[Any, ...]:
    if why := figure.get("why"):
        return (figure["name"], figure["against"], why, "", "", _target(figure), "", "")
    verdict = {True: "yes", False: "**no**"}[figure["met"]] if figure["target"] is not None else ""
    ours = f"{told(figure['ours'])} {figure['unit']}"
    values = (ours, told(figure["peer"]), told(figure["ratio"]))
    return (figure["name"], figure["against"], *values, _target(figure), verdict, figure["repeats"])


def _target(figure: dict[str, Any]) -> str:
    return "" if figure["target"] is None else f"{figure['reach']} {figure['target']:g}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
