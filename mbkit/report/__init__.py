"""A report: one HTML page a person enjoys, from run directories alone."""

from mbkit.report.page import write_report

__all__ = ["write_report"]
