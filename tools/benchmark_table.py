"""Prints rows of `medcritical benchmark` as the table of docs/results.md: `tools/benchmark_table.py FILE.json`."""

import sys
from pathlib import Path
from typing import Any

from jobs.benchmark import goal_and_verdict, rows_kept_in, told


def main(file: Path) -> None:
    print("| row | figure | against | ours | peer | ratio | target | met | repeats |")
    print("|---|---|---|---|---|---|---|---|---|")
    for number, row in sorted(rows_kept_in(file).items()):
        for figure in (row, *row["also"]):
            print("| " + " | ".join(map(str, (number, *_cells(figure)))) + " |")


def _cells(figure: dict[str, Any]) -> tuple[Any, ...]:
    ours = figure.get("why") or f"{told(figure['ours'])} {figure['unit']}"
    values = (ours, told(figure["peer"]), told(figure["ratio"]))
    return (figure["name"], figure["against"], *values, *goal_and_verdict(figure), figure["repeats"])


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("error: name a file that `medcritical benchmark --json` has written")
    main(Path(sys.argv[1]))
