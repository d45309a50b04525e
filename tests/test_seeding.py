import itertools
import random

import numpy as np
import pytest
import torch

from overfit_lab.seeding import derive_seed, numpy_generator, torch_generator

# The first 16 hexadecimal digits of `printf "%s" "('split', 0, 'test')" | sha256sum`, and of another key.
SPLIT = 0x33FDB520E4D87F18
ORDER = 0x19B9560736918A79


@pytest.mark.parametrize(("bits", "expected"), [(64, SPLIT), (63, SPLIT >> 1), (32, 0x33FDB520), (8, 0x33), (1, 0)])
def test_seed_is_the_top_bits_of_the_key_hash(bits: int, expected: int) -> None:
    assert derive_seed("split", 0, "test", bits=bits) == expected


def test_seed_has_63_bits_unless_told_otherwise() -> None:
    assert derive_seed("order", 0, 1, 2, 3) == ORDER >> 1


def test_keys_that_look_alike_give_different_seeds() -> None:
    keys: list[tuple[int | str, ...]] = [
        ("order", 0, 1, 2),
        ("order", 0, 2, 1),
        ("order", 1, 0, 2),
        ("order", 0, 1),
        ("order", 0, 12),
        ("order", "0", 1, 2),
        ("order", 0, "1, 2"),
        ("order 0", 1, 2),
        ("dropout", 0, 1, 2),
        ("order", 0, 1, 2, 0),
        ("order", 1, 23),
        ("order", 12, 3),
        ("order", 123),
        ("order", -1),
        ("order",),
        (),
    ]
    for a, b in itertools.combinations(keys, 2):
        assert derive_seed(*a) != derive_seed(*b), (a, b)


def test_numpy_generator_is_seeded_by_the_key() -> None:
    expected = np.random.default_rng(ORDER >> 1).random(5)
    np.testing.assert_array_equal(numpy_generator("order", 0, 1, 2, 3).random(5), expected)
    assert not np.array_equal(numpy_generator("order", 0, 1, 2, 4).random(5), expected)


def test_torch_generator_is_seeded_by_the_key() -> None:
    generator = torch_generator("order", 0, 1, 2, 3)
    expected = torch.rand(5, generator=torch.Generator().manual_seed(ORDER >> 1))
    assert generator.device.type == "cpu"
    assert torch.rand(5, generator=generator).tolist() == expected.tolist()
    assert torch.rand(5, generator=torch_generator("order", 0, 1, 2, 4)).tolist() != expected.tolist()


def test_generators_do_not_depend_on_others_drawn_in_between() -> None:
    alone = torch_generator("dropout", 3, 0, 1)
    expected = [torch.rand(4, generator=alone).tolist() for _ in range(3)]
    own, neighbour = torch_generator("dropout", 3, 0, 1), torch_generator("dropout", 3, 0, 2)
    found = []
    for _ in range(3):
        found.append(torch.rand(4, generator=own).tolist())
        torch.rand(7, generator=neighbour)
        torch.rand(2)
    assert found == expected


def test_global_generators_are_neither_read_nor_written() -> None:
    before = random.getstate(), np.random.get_state(legacy=False)["state"]["pos"], torch.get_rng_state()  # noqa: NPY002
    first = numpy_generator("a", 1).random(), torch.rand(1, generator=torch_generator("a", 1)).item()
    after = random.getstate(), np.random.get_state(legacy=False)["state"]["pos"], torch.get_rng_state()  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    torch.manual_seed(99)
    assert first == (numpy_generator("a", 1).random(), torch.rand(1, generator=torch_generator("a", 1)).item())
