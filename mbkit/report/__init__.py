"""The report: one HTML page from run directories."""

from mbkit.report.page import write_report

__all__ = ["write_report"]
