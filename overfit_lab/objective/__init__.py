"""The objective: loss plus penalty, reported apart, and which parameters are weights."""

from overfit_lab.objective.penalty import Penalty, make_penalty
from overfit_lab.objective.weights import ParameterRole, parameter_roles, penalised_names

__all__ = ["ParameterRole", "Penalty", "make_penalty", "parameter_roles", "penalised_names"]
