"""Studies: what a directory of runs holds, as typed records and frames."""

from overfit_lab.study.study import FailedRun, Study, load_study

__all__ = ["FailedRun", "Study", "load_study"]
