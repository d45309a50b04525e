"""Sources whose truth is known: drawn, not collected, each by its `data.seed` alone.

Each is a function that a file of `conf/data` names, and its keys are the function's arguments. Another `data.seed` is
another draw of the data, and of the truth where that is drawn, too; the seed of a fit has no part in it.
"""

from overfit_lab.data.synthetic.classification import modular_addition, random_labels
from overfit_lab.data.synthetic.mnist_1d import mnist1d
from overfit_lab.data.synthetic.polynomials import polynomial
from overfit_lab.data.synthetic.regression import linear_gaussian, teacher_student

__all__ = ["linear_gaussian", "mnist1d", "modular_addition", "polynomial", "random_labels", "teacher_student"]
