"""The report of a run: one HTML file that needs no network."""

from medcritical_ray.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
