"""What a trained network is like beside its curves. These measures describe; they select nothing.

How far the weights have gone, how many parameters the data determine [Hastie, Tibshirani, Friedman 2009, eq. 7.34;
MacKay 1992; Bishop 2006, eq. 3.91], and the margins of a classifier [Bartlett, Foster, Telgarsky 2017; Neyshabur et al.
2017].
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from overfit_lab.data.datamodule import CohortDataModule
from overfit_lab.model.networks import FixedFeatures
from overfit_lab.seeding import numpy_generator
from overfit_lab.task.task import Task
from overfit_lab.training.measure import CHUNK_ELEMENTS, predict
from overfit_lab.training.stack import StackedNetwork
from overfit_lab.training.stack.layered import DERIVATIVES, LayeredNetwork

# The layers of a single network, with their names.
Layers: TypeAlias = Sequence[tuple[str, nn.Module]]

# Rows times outputs, at most, whose kernel is computed: its factorisation costs the cube of them, 10 ms for these.
MAX_KERNEL = 400
# The strength on what is not penalised, as a fraction of the largest eigenvalue: smaller eigenvalues count as zero.
RIDGE = 1e-10
QUANTILE = 0.1
# Steps of the power method, for the scale of the ridge alone.
POWER_STEPS = 10


@dataclass(frozen=True, eq=False)
class Description:
    """The trained members of a cohort, in float64 on the CPU; NaN where a measure is not defined, or not asked for.

    Args:
        effective_dof: `streams x configurations`, the effective number of parameters.
        effective_dof_rows: `streams`, on how many rows it was computed; it cannot exceed them times the outputs.
        normalised_margin: `streams x configurations`.
    """

    effective_dof: Tensor
    effective_dof_rows: tuple[int, ...]
    normalised_margin: Tensor


def join(parts: Sequence[Description]) -> Description:
    """Join the descriptions of parts that have trained one after another: streams of the first part come first."""
    return Description(
        torch.cat([part.effective_dof for part in parts]),
        tuple(rows for part in parts for rows in part.effective_dof_rows),
        torch.cat([part.normalised_margin for part in parts]),
    )


def weight_norms(weights: Iterable[Tensor], initial: Iterable[Tensor]) -> dict[str, Tensor]:
    """Measure each member's weights, and how far they are from where they began.

    Args:
        weights: Stacked weights, each `streams x configurations x ...`.
        initial: Their values before the first step, in the same order.

    Returns:
        `weight_norm` ||w|| and `distance_from_init` ||w - w_0||, each `streams x configurations`.
    """
    norms, distances = [], []
    for now, then in zip(weights, initial, strict=True):
        # Flat, because a scalar parameter has no other dimensions.
        # In the type of the weights: to convert them would cost more than the norm.
        norms.append(_norm(now.reshape(*now.shape[:2], -1)))
        distances.append(_norm((now - then).reshape(*now.shape[:2], -1)))
    return {
        "weight_norm": _norm(torch.stack(norms, -1).double()),
        "distance_from_init": _norm(torch.stack(distances, -1).double()),
    }


def _norm(values: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values, dim=-1)
    return norm


@torch.no_grad()
def describe(
    network: StackedNetwork,
    task: Task,
    data: CohortDataModule,
    weights: Collection[str],
    l1: Tensor | None,
    l2: Tensor | None,
    *,
    fold: tuple[int, int],
    device: torch.device,
) -> Description:
    """Describe trained members. A network that is no plain sequence of known layers is not described.

    Args:
        network: The members, on the CPU; left as they are.
        task: Its loss, and whether there are margins.
        data: What they were trained on.
        weights: Names of the parameters that are penalised.
        l1: `configurations`, strength of the absolute values; None where it is 0 for all.
        l2: `configurations`, strength of the squares; None where it is 0 for all.
        fold: The (repeat, fold) on which the effective number of parameters is computed: one of them, for its cost.
        device: Where the margins are computed.
    """
    dof = torch.full((network.streams, network.configurations), math.nan, dtype=torch.float64)
    margin, counts = dof.clone(), [0] * network.streams
    if not isinstance(network, LayeredNetwork):
        return Description(dof, tuple(counts), margin)
    layers, stacked = network.layers(), network.stacked_parameters()
    # What is not trained is part of the computation all the same.
    fixed = {f"{name}.directions".lstrip(".") for name, layer in layers if isinstance(layer, FixedFeatures)}
    stacked |= {name: value for name, value in network.stacked_constants().items() if name in fixed}
    train, measured = data.train.x, data.train_measured.x
    # Sparse rows are not multiplied one by one here, but as they were measured.
    classes = task.problem in ("binary", "multiclass")
    logits = (
        None
        if isinstance(measured, Tensor) or not classes
        else predict(network, data.train_measured, data.fold_of_stream)
    )
    for s, stream in enumerate(data.streams):
        own, number = {name: value[s] for name, value in stacked.items()}, data.fold_of_stream[s]
        if (stream.repeat, stream.fold) == fold:
            rows = _chosen_rows(data.train.sizes[number], _outputs(layers, own), fold)
            counts[s] = len(rows)
            chosen = train[number, rows] if isinstance(train, Tensor) else train.dense_rows(number, rows)
            for c in range(network.configurations):
                # An absolute value has no curvature, and so no part in this.
                if len(rows) and (l1 is None or l1[c] == 0):
                    member = {name: value[c] for name, value in own.items()}
                    alpha = 0.0 if l2 is None else float(l2[c])
                    dof[s, c] = effective_dof(layers, member, task, chosen, weights, alpha)
        if classes:
            size = data.train_measured.sizes[number]
            y = data.train_measured.y[number, :size]
            if logits is not None:
                margins = _margins(logits[s, :, :size].transpose(-1, -2), y.reshape(-1).long())
                margin[s] = _normalised(margins, layers, own)
            else:
                assert isinstance(measured, Tensor)
                there = {name: value.to(device) for name, value in own.items()}
                margin[s] = normalised_margin(layers, there, measured[number, :size].to(device), y.to(device)).cpu()
    return Description(dof, tuple(counts), margin)


def effective_dof(
    layers: Layers, values: Mapping[str, Tensor], task: Task, x: Tensor, weights: Collection[str], alpha: float
) -> float:
    """Compute the effective number of parameters of one network, sum_i lambda_i / (lambda_i + alpha).

    The lambda_i are the eigenvalues of the Gauss-Newton matrix G = J^T H J of the mean loss over the rows. What is not
    penalised has a ridge instead of alpha that is nearly nothing: without a penalty this is the rank of G. For other
    parameters A is the diagonal of their strengths, and the number is the trace of G (G + A)^-1. It is computed as
    that of K (K + 1)^-1 with K = H^1/2 J A^-1 J^T H^1/2, which has a row for each row and output of the data, instead
    of one for each parameter; for a layer, K is the product of the inputs' Gram matrix and that of the gradients.
    A decay that is decoupled from the loss is no part of this.

    Args:
        layers: Of the network.
        values: Its parameters.
        task: What its loss is.
        x: `rows x features`.
        weights: Names of the parameters that alpha is the strength on.
        alpha: Strength of the penalty alpha / 2 ||w||^2.

    Returns:
        NaN where anything is not finite.
    """
    values = {name: value.to("cpu", torch.float64) for name, value in values.items()}
    inputs, logits = _propagate(layers, values, x.to("cpu", torch.float64))
    outputs, rows = logits.shape
    # A factor of each row's Hessian is carried backwards: `columns of the factor x features x rows`.
    d = curvature_factor(task, logits.T).permute(2, 1, 0) / math.sqrt(rows)
    size = rows * outputs
    penalised, free = (torch.zeros(size, size, dtype=torch.float64) for _ in range(2))
    for (name, layer), (h, out) in zip(reversed(layers), reversed(inputs), strict=True):
        if isinstance(layer, nn.Linear):
            weight, bias = (f"{name}.{kind}".lstrip(".") for kind in ("weight", "bias"))
            gradients = d.transpose(1, 2).reshape(size, -1)
            gram = gradients @ gradients.T
            if bias in values:
                (penalised if bias in weights else free).add_(gram)
            gram.mul_((h.T @ h).repeat(outputs, outputs))
            (penalised if weight in weights else free).add_(gram)
            d = values[weight].T @ d
        elif type(layer) in DERIVATIVES:
            d = DERIVATIVES[type(layer)](layer, d, h.expand_as(d), out.expand_as(d))
    ridge = RIDGE * _largest_eigenvalue(penalised + free)
    if ridge == 0 or not math.isfinite(ridge):
        return ridge
    kernel = penalised / max(alpha, ridge) + free / ridge
    kernel.diagonal().add_(1)
    factor, failed = torch.linalg.cholesky_ex(kernel)
    if failed:
        return math.nan
    inverse = torch.linalg.solve_triangular(factor, torch.eye(size, dtype=torch.float64), upper=False)
    return size - float(inverse.square().sum())


def curvature_factor(task: Task, logits: Tensor) -> Tensor:
    """Compute B of each row, where B B^T is the second derivative of its loss by its logits.

    Of a sigmoid's squared error it is the part that is never negative, as Gauss and Newton take it.

    Args:
        task: What the loss is.
        logits: `rows x outputs`.

    Returns:
        `rows x outputs x outputs`.
    """
    outputs = logits.shape[-1]
    if task.loss_name == "categorical_cross_entropy":
        # With B = diag(s) - p s^T and s^2 = p, B B^T = diag(p) - p p^T.
        p = logits.softmax(-1)
        return p.sqrt().diag_embed() - p[..., None] * p.sqrt()[..., None, :]
    p = logits.sigmoid()
    if task.loss_name == "binary_cross_entropy":
        curvature = p * (1 - p)
    else:
        curvature = 2 * (p * (1 - p)).square() if task.problem == "unit_regression" else torch.full_like(p, 2.0)
    return (curvature / outputs).sqrt().diag_embed()


def normalised_margin(layers: Layers, values: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Compute the 10 % quantile of the margins, divided by the product of the layers' spectral norms.

    The margin of a row is the logit of its class less the largest other one; with one output, the logit itself, with
    the sign of its class.

    Args:
        layers: Of each network.
        values: Their parameters, each `networks x ...`.
        x: `rows x features`.
        y: `rows [x 1]`, classes.

    Returns:
        `networks`, in float64; NaN where anything is not finite, or a layer is nothing but zeros.
    """
    count = next(iter(values.values())).shape[0]
    step = max(1, CHUNK_ELEMENTS[x.device.type] // (count * max(max(value.shape[1:]) for value in values.values())))
    labels = y.reshape(-1).long()
    chunks = zip(torch.split(x, step), torch.split(labels, step), strict=True)
    margins = torch.cat([_margins(_propagate(layers, values, part)[1], own) for part, own in chunks], dim=-1)
    return _normalised(margins, layers, values)


def _normalised(margins: Tensor, layers: Layers, values: Mapping[str, Tensor]) -> Tensor:
    """Divide the quantile of margins, `networks x rows`, by the product of the layers' spectral norms."""
    ordered = margins.double().sort(dim=-1).values
    place = QUANTILE * (margins.shape[-1] - 1)
    low, high = ordered[:, math.floor(place)], ordered[:, math.ceil(place)]
    quantile = low + (high - low) * (place % 1)
    bound = torch.ones_like(quantile)
    for name, layer in layers:
        if isinstance(layer, nn.Linear | FixedFeatures):
            kind = "weight" if isinstance(layer, nn.Linear) else "directions"
            bound *= _spectral_norm(values[f"{name}.{kind}".lstrip(".")].double())
    result = quantile / bound
    return torch.where(result.isfinite() & ordered[:, -1].isfinite(), result, math.nan)


def _margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute `networks x rows` from logits, `networks x outputs x rows`."""
    if logits.shape[1] == 1:
        return logits[:, 0] * (2 * labels - 1)
    index = labels.expand(len(logits), 1, -1)
    others = logits.scatter(1, index, -math.inf)
    return logits.gather(1, index)[:, 0] - others.amax(1)


def _spectral_norm(matrices: Tensor) -> Tensor:
    """Compute the largest singular value of each matrix."""
    # Of the smaller Gram matrix: a singular value decomposition costs ten times as much.
    flat = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.transpose(1, 2)
    gram = flat @ flat.transpose(1, 2)
    finite = gram.isfinite().all(-1).all(-1)
    # What is not finite makes the decomposition raise, for all of them.
    largest = torch.linalg.eigvalsh(gram.where(finite[:, None, None], 0.0))[:, -1]
    return torch.where(finite, largest.clamp_min(0).sqrt(), math.nan)


def _propagate(layers: Layers, values: Mapping[str, Tensor], x: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Compute what goes into each layer and what comes out, and the logits, in eval mode.

    Args:
        layers: Of the network.
        values: Its parameters, or those of several, each `networks x ...`.
        x: `rows x features`.

    Returns:
        Each `[networks x] features x rows`.
    """
    h, passed = x.T, []
    for name, layer in layers:
        if isinstance(layer, nn.Linear):
            bias = values.get(f"{name}.bias".lstrip("."))
            out = values[f"{name}.weight".lstrip(".")] @ h
            out = out if bias is None else out + bias[..., None]
        elif isinstance(layer, FixedFeatures):
            out = (values[f"{name}.directions".lstrip(".")] @ h).relu()
        elif type(layer) in DERIVATIVES:
            # One that works in place must not touch the rows.
            out = layer(h.clone())
        else:
            out = h
        passed.append((h, out))
        h = out
    return passed, h


def _chosen_rows(size: int, outputs: int, fold: tuple[int, int]) -> Tensor:
    """Choose the rows whose kernel is computed: all, or where they are many a fixed subset; none for many outputs."""
    count = min(size, MAX_KERNEL // outputs)
    return torch.from_numpy(numpy_generator("effective_dof", *fold).permutation(size)[:count]).sort().values


def _outputs(layers: Layers, values: Mapping[str, Tensor]) -> int:
    last = [name for name, layer in layers if isinstance(layer, nn.Linear)][-1]
    return int(values[f"{last}.weight".lstrip(".")].shape[-2])


def _largest_eigenvalue(matrix: Tensor) -> float:
    """Guess the largest eigenvalue of a matrix without negative ones by the power method; NaN stays NaN."""
    vector = matrix[:, matrix.diagonal().argmax()]
    length = 0.0
    for _ in range(POWER_STEPS):
        length = float(vector.norm())
        if length == 0 or not math.isfinite(length):
            return length
        vector = matrix @ (vector / length)
    return float(vector.norm())
