"""The HTML reports: one self-contained file from a run folder, from several side by side, or over many methods."""

from beholder.report.comparison import comparison_markdown, write_comparison
from beholder.report.page import write_report

__all__ = ["write_report", "write_comparison", "comparison_markdown"]
