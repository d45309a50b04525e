"""Tasks: what the last layer and the loss are for each problem type, and which metrics fit."""

from overfit_lab.task.task import Task, make_task

__all__ = ["Task", "make_task"]
