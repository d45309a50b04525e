"""Networks stacked into one module that trains them all: `streams x configurations` members side by side.

There are three forms, and `stack` takes the fastest that fits. A layered network computes a plain sequence of layers
with one batched product for each; a vmapped one any network that `torch.func.vmap` takes; a looped one any network at
all, one member after another. For inputs that are mostly 0 the layered one has a variant. All give the same numbers.
"""

from overfit_lab.training.stack.forms import Choice, Form, choose_form, stack
from overfit_lab.training.stack.network import Noise, StackedNetwork

__all__ = ["Choice", "Form", "Noise", "StackedNetwork", "choose_form", "stack"]
