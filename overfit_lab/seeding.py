"""Named randomness: every random number comes from a generator that is seeded by what it is for.

A key such as `("order", seed, repeat, fold, epoch)` gives the same stream of numbers wherever and in whatever
company it is asked for. So a fit does not depend on the fits beside it, and an interrupted one needs no generator
state to go on: the key of the next epoch is enough.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(*key: int | str, bits: int = 63) -> int:
    """Hash a key into a seed.

    Args:
        key: What the randomness is for, the purpose first: `derive_seed("split", 0, "test")`.
        bits: Size of the seed; scikit-learn takes 32 of them, torch 63.

    Returns:
        A non-negative integer below 2 ** bits, the same on every machine.
    """
    # repr keeps 1 and "1" apart, and the commas keep (1, 23) and (12, 3) apart.
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - bits)


def numpy_generator(*key: int | str) -> np.random.Generator:
    """Return the NumPy generator of a key."""
    return np.random.default_rng(derive_seed(*key))


def torch_generator(*key: int | str) -> torch.Generator:
    """Return the torch generator of a key, on the CPU so that every device sees the same numbers."""
    import torch

    return torch.Generator().manual_seed(derive_seed(*key))
