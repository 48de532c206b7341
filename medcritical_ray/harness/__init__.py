"""Questions as tasks of lm-evaluation-harness, which then asks and grades them without this package."""
