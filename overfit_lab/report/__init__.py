"""Reports: the table on the terminal, and runs.csv and figures in the study's folder."""

from overfit_lab.report.report import write_report
from overfit_lab.report.table import results_table, seeds_table

__all__ = ["results_table", "seeds_table", "write_report"]
