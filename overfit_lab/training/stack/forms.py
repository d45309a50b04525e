"""Which form of a stacked network fits a network."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from overfit_lab.errors import UserError, first_line, is_out_of_memory
from overfit_lab.seeding import torch_generator
from overfit_lab.training.stack.layered import LayeredNetwork, begins_linearly, is_layered
from overfit_lab.training.stack.looped import LoopedNetwork
from overfit_lab.training.stack.network import Noise, StackedNetwork
from overfit_lab.training.stack.sparse import SparseNetwork
from overfit_lab.training.stack.vmapped import VmappedNetwork

Form: TypeAlias = Literal["sparse", "layered", "vmapped", "looped"]

_FORMS: dict[Form, type[StackedNetwork]] = {
    "sparse": SparseNetwork,
    "layered": LayeredNetwork,
    "vmapped": VmappedNetwork,
    "looped": LoopedNetwork,
}
_MIX_ROWS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Choice(NamedTuple):
    """A form, and where it is the looped one, why."""

    form: Form
    reason: str | None = None


def stack(networks: Sequence[Sequence[nn.Module]], form: Form) -> StackedNetwork:
    """Stack networks, one row for each stream and one column for each configuration."""
    return _FORMS[form](networks)


def choose_form(
    network: nn.Module, features: int, *, mixed_precision: bool, tokens: int | None = None, sparse: bool = False
) -> Choice:
    """Find the fastest form that fits a network.

    Args:
        network: One network; left as it is.
        features: Of a row.
        mixed_precision: Whether autocast chooses types; the layered form writes results into place, which autocast
            does not take.
        tokens: How many tokens there are, where inputs are token numbers.
        sparse: Whether inputs come in sparse rows. Other forms than the one for these fill in their zeros, batch by
            batch, or where rows of a batch may mix for one member at a time.

    Raises:
        UserError: The network calls a dropout layer twice, or replaces a buffer.
    """
    if is_layered(network) and not mixed_precision:
        return Choice("sparse" if sparse and begins_linearly(network) else "layered")
    for name, module in network.named_modules():
        if module._backward_hooks or module._backward_pre_hooks:
            return Choice("looped", f"{f'layer {name}' if name else 'it'} has backward hooks")
        if isinstance(module, _MIX_ROWS):
            # Folds differ by a row, and rows that pad a batch would enter its statistics.
            return Choice("looped", f"layer {name} is a {type(module).__name__}, which mixes the rows of a batch")
    _check_buffers(network, features)
    stacked = VmappedNetwork([[copy.deepcopy(network), copy.deepcopy(network)]])
    layers = {name: torch.full((1, 1, 2, *shape), 0.5) for name, shape in stacked.noise_shapes((features,))[0].items()}
    x, changed = _trial_rows(features, tokens)
    try:
        stacked.differentiate(x, Noise(layers), lambda z: (z.sum((-1, -2)), torch.ones_like(z)), [2])
        with torch.no_grad():
            before, after = (stacked(rows, Noise(layers))[:, :, 0] for rows in (x, changed))
    except Exception as error:  # whatever the user's network, or torch about it, may raise
        if is_out_of_memory(error):
            raise
        return Choice("looped", first_line(error))
    if not torch.equal(before, after):
        return Choice("looped", "in training it mixes the rows of a batch")
    return Choice("vmapped")


def _trial_rows(features: int, tokens: int | None) -> tuple[Tensor, Tensor]:
    """Make two rows, and the same with another second one: `1 x 2 x features` each."""
    generator = torch_generator("form")
    if tokens is None:
        x = torch.randn(1, 2, features, generator=generator)
        return x, x * torch.tensor([[[1.0], [-2.0]]])
    numbers = torch.randint(tokens, (1, 2, features), generator=generator)
    changed = numbers.clone()
    changed[:, 1] = (numbers[:, 1] + 1) % tokens
    return numbers.float(), changed.float()


def _check_buffers(network: nn.Module, features: int) -> None:
    """Check that a forward pass leaves every buffer the tensor that it was: a new one would be lost with the pass."""
    tried = copy.deepcopy(network).train()
    before = dict(tried.named_buffers())
    with torch.random.fork_rng(devices=[]), contextlib.suppress(Exception), torch.no_grad():
        tried(torch.zeros(2, features))
    for name, after in tried.named_buffers():
        if after is not before.get(name):
            raise UserError(
                f"the network replaces its buffer {name} in a pass; change it in place, as in {name}.add_(1)"
            )
