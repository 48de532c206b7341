"""Bad rows are set aside and counted, so that every row read is either loaded or quarantined with its reason."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medcritical_ray.errors import UserError
from medcritical_ray.files import atomic_path
from medcritical_ray.questions.door import BadRow
from medcritical_ray.records import Question
from medcritical_ray.run.tables import schema_of


class Quarantine:
    """Keeps the bad rows of question files while their questions pass through.

    Questions are not held; bad rows are, since each is but a file, a number and a reason.
    """

    def __init__(self) -> None:
        self.num_loaded = 0
        self.bad_rows: list[BadRow] = []

    def admit(self, path: Path | str, rows: Iterable[Question | BadRow]) -> Iterator[Question]:
        """Yields the questions among a file's rows and sets the others aside.

        Raises UserError at the end if the file had no rows, or none that is usable.
        """
        before = self._state()
        for row in rows:
            if isinstance(row, BadRow):
                self.bad_rows.append(row)
            else:
                self.num_loaded += 1
                yield row
        num_loaded, num_bad = (now - then for now, then in zip(self._state(), before, strict=True))
        if num_loaded == 0:
            raise UserError(_nothing_usable(path, self.bad_rows[-num_bad:] if num_bad else []))

    def reasons(self) -> dict[str, int]:
        """Reason -> number of bad rows, the most frequent first."""
        return dict(Counter(row.reason for row in self.bad_rows).most_common())

    def counts(self) -> dict[str, Any]:
        """`rows`, `loaded`, `quarantined` (always rows == loaded + quarantined) and `reasons`."""
        num_bad = len(self.bad_rows)
        return {
            "rows": self.num_loaded + num_bad,
            "loaded": self.num_loaded,
            "quarantined": num_bad,
            "reasons": self.reasons(),
        }

    def lines(self) -> list[str]:
        """What was set aside, in a line, if anything was."""
        if not self.bad_rows:
            return []
        first, counts = self.bad_rows[0], self.counts()
        set_aside = f"{counts['quarantined']:,} of {counts['rows']:,} rows of questions set aside"
        return [f"{set_aside} ({_told(counts['reasons'])}); the first: {first.file}, row {first.row}: {first.reason}"]

    def write(self, path: Path) -> None:
        """Writes a parquet file with the columns file, row, reason, whole or not at all, also if no row is bad."""
        rows = [asdict(bad) for bad in self.bad_rows]
        with atomic_path(path) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema_of(BadRow)), temporary, write_page_checksum=True)

    def _state(self) -> tuple[int, int]:
        return self.num_loaded, len(self.bad_rows)


def _nothing_usable(path: Path | str, bad_rows: list[BadRow]) -> str:
    if not bad_rows:
        return f"{path} has no rows; give a file with questions"
    reasons = f"{_told(Counter(row.reason for row in bad_rows))}; the first: row {bad_rows[0].row}"
    return f"{path} has no usable question among its {len(bad_rows):,} rows ({reasons}); check its content and format"


def _told(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {count:,}" for reason, count in Counter(reasons).most_common())
