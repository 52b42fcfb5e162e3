"""The HTML report: one self-contained file from one run folder, or from several side by side."""

from beholder.report.page import write_report

__all__ = ["write_report"]
