"""Networks of configurable capacity, as plain modules, and what they are made of."""

from overfit_lab.model.build import build_network, initialise, stackable_shape
from overfit_lab.model.convolutional import CNN, ResNet
from overfit_lab.model.dropout import SeededDropout, with_seeded_dropout
from overfit_lab.model.networks import MLP, Linear, RandomFeatures
from overfit_lab.model.parameters import Pass, count_parameters, count_pass
from overfit_lab.model.transformer import Transformer

__all__ = [
    "CNN",
    "MLP",
    "Linear",
    "Pass",
    "RandomFeatures",
    "ResNet",
    "SeededDropout",
    "Transformer",
    "build_network",
    "count_parameters",
    "count_pass",
    "initialise",
    "stackable_shape",
    "with_seeded_dropout",
]
