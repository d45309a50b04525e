"""What a run and its study leave on disk: typed, versioned, saved and loaded here and nowhere else."""

from overfit_lab.records.cohort import CohortFiles, CohortRecord
from overfit_lab.records.final import (
    CandidateRecord,
    FinalRecord,
    IntervalRecord,
    LedgerLine,
    LeftOut,
    RetrainRecord,
    Rule,
    SelectionRecord,
    TestRecord,
    ValidationRecord,
)
from overfit_lab.records.nested import MeanRecord, NestedRecord, OuterFoldRecord
from overfit_lab.records.run import (
    Descriptive,
    Environment,
    FailureRecord,
    FitRecord,
    RunFiles,
    RunRecord,
    Status,
    ValLoss,
    ValLosses,
)
from overfit_lab.records.schema import SCHEMA_VERSION, Damaged, write_frame
from overfit_lab.records.study import DuplicatesRecord, SourceRecord, StudyFiles, StudyRecord, TestUse

__all__ = [
    "SCHEMA_VERSION",
    "CandidateRecord",
    "CohortFiles",
    "CohortRecord",
    "Damaged",
    "Descriptive",
    "DuplicatesRecord",
    "Environment",
    "FailureRecord",
    "FinalRecord",
    "FitRecord",
    "IntervalRecord",
    "LedgerLine",
    "LeftOut",
    "MeanRecord",
    "NestedRecord",
    "OuterFoldRecord",
    "RetrainRecord",
    "Rule",
    "RunFiles",
    "RunRecord",
    "SelectionRecord",
    "SourceRecord",
    "Status",
    "StudyFiles",
    "StudyRecord",
    "TestRecord",
    "TestUse",
    "ValLoss",
    "ValLosses",
    "ValidationRecord",
    "write_frame",
]
