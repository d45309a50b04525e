"""Which parameters of a network are weights, and so penalised. Decided by module type and name, never by shape.

Shape would mislead: stacked in a cohort, every bias has as many dimensions as a weight has alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from torch import nn

from overfit_lab.errors import UserError

ParameterRole: TypeAlias = Literal["weight", "bias", "normalisation", "slope", "embedding"]

_LINEAR_LIKE = (
    nn.Linear,
    nn.Bilinear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
_NORMALISATION = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_EMBEDDING = (nn.Embedding, nn.EmbeddingBag)


def parameter_roles(network: nn.Module) -> dict[str, ParameterRole | None]:
    """Name the role of every parameter, tied ones once; None where the module type does not tell.

    Weights are those of linear, convolutional, bilinear, recurrent and attention layers. Biases, scales and shifts
    of normalisation, slopes of PReLU and embeddings are not.
    """
    roles: dict[str, ParameterRole | None] = {}
    seen: set[nn.Parameter] = set()
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                roles[f"{prefix}.{name}".lstrip(".")] = _role(module, name)
    return roles


def _role(module: nn.Module, name: str) -> ParameterRole | None:
    if isinstance(module, _NORMALISATION):
        return "normalisation"
    if isinstance(module, _EMBEDDING):
        return "embedding"
    if isinstance(module, nn.PReLU):
        return "slope"
    if isinstance(module, _LINEAR_LIKE):
        # The recurrent and attention layers have names such as weight_ih_l0, in_proj_weight, bias_k.
        return "bias" if "bias" in name else "weight" if "weight" in name else None
    return None


def penalised_names(network: nn.Module, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> frozenset[str]:
    """Name the parameters that a penalty or a decay applies to.

    Args:
        network: One network, not stacked.
        include: Patterns of names (as in fnmatch) that are penalised whatever their role.
        exclude: Patterns of names that are never penalised; they win over `include`.

    Raises:
        UserError: A parameter's role is unknown and no pattern settles it, or a pattern matches nothing.
    """
    roles = parameter_roles(network)
    for key, patterns in (("penalty.include", include), ("penalty.exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in roles):
                raise UserError(f"{key}={pattern}: matches no parameter; allowed are {', '.join(roles)}")
    return frozenset(name for name, role in roles.items() if _is_penalised(name, role, include, exclude, roles))


def _is_penalised(
    name: str,
    role: ParameterRole | None,
    include: Sequence[str],
    exclude: Sequence[str],
    roles: Mapping[str, ParameterRole | None],
) -> bool:
    if any(fnmatchcase(name, pattern) for pattern in exclude):
        return False
    if any(fnmatchcase(name, pattern) for pattern in include):
        return True
    if role is None:
        raise UserError(
            f"parameter {name} of the network is in no known layer type, so it cannot be told whether it is a weight; "
            f"say so by penalty.include=[{name}] or penalty.exclude=[{name}]"
        )
    return role == "weight"
