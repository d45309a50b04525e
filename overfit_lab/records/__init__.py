"""What a run and its study leave on disk: typed, versioned, saved and loaded here and nowhere else."""

from overfit_lab.records.run import (
    Environment,
    FailureRecord,
    FitRecord,
    RunFiles,
    RunRecord,
    Status,
    ValLoss,
    ValLosses,
)
from overfit_lab.records.schema import SCHEMA_VERSION, write_frame
from overfit_lab.records.study import CohortRecord, SourceRecord, StudyFiles, StudyRecord

__all__ = [
    "SCHEMA_VERSION",
    "CohortRecord",
    "Environment",
    "FailureRecord",
    "FitRecord",
    "RunFiles",
    "RunRecord",
    "SourceRecord",
    "Status",
    "StudyFiles",
    "StudyRecord",
    "ValLoss",
    "ValLosses",
    "write_frame",
]
