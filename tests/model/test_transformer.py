"""The transformer encoder against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from overfit_lab.errors import UserError
from overfit_lab.model import Transformer, count_parameters

SIZE, HEADS = 12, 3


def transformer(
    shape: tuple[int, ...] | None, tokens: int | None = None, *, inputs: int = 24, depth: int = 2, patch: int = 1
) -> Transformer:
    torch.manual_seed(0)
    network = Transformer(inputs, 3, shape, tokens, embedding=SIZE, depth=depth, heads=HEADS, patch=patch, dropout=0.2)
    for parameter in network.double().eval().parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def torchs(network: Transformer) -> nn.TransformerEncoder:
    """Build torch's encoder with the weights of ours."""
    layer = nn.TransformerEncoderLayer(
        SIZE, HEADS, 4 * SIZE, activation="gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    encoder = nn.TransformerEncoder(layer, len(network.blocks), nn.LayerNorm(SIZE).double(), enable_nested_tensor=False)
    names = {
        "attend.0": "norm1",
        "attend.1.project": "self_attn.in_proj",
        "attend.1.combine": "self_attn.out_proj",
        "think.0": "norm2",
        "think.1": "linear1",
        "think.3": "linear2",
    }
    state = {}
    for name, value in network.state_dict().items():
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            inner, _, kind = rest.rpartition(".")
            own = names[inner]
            state[f"layers.{number}.{own}{'_' if own.endswith('in_proj') else '.'}{kind}"] = value
        elif name.startswith("norm."):
            state[name] = value
    encoder.load_state_dict(state)
    return encoder.eval()


def finish(network: Transformer, sequence: Tensor) -> Tensor:
    h = torchs(network)(sequence + network.position.weight)
    logits: Tensor = h.mean(1) @ network.head.weight.T + network.head.bias
    return logits


def test_tokens_are_looked_up() -> None:
    network = transformer(None, 7, inputs=5)
    assert isinstance(network.embed, nn.Embedding)
    x = torch.randint(7, (4, 5))
    expected = finish(network, network.embed.weight[x])
    torch.testing.assert_close(network(x.double()), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [None, (24,), (1, 24), (2, 12), (6, 2, 2)])
def test_rows_are_sequences_of_places(shape: tuple[int, ...] | None) -> None:
    network = transformer(shape)
    x = torch.randn(4, 24, dtype=torch.float64)
    channels = shape[0] if shape is not None and len(shape) > 1 else 1
    places = x.reshape(4, channels, -1).transpose(1, 2)
    weight, bias = network.get_parameter("embed.1.weight"), network.get_parameter("embed.1.bias")
    torch.testing.assert_close(network(x), finish(network, places @ weight.T + bias), rtol=1e-10, atol=1e-12)


def test_patches_of_an_image_are_what_a_strided_convolution_sees() -> None:
    network = transformer((3, 4, 6), inputs=72, patch=2)
    x = torch.randn(4, 72, dtype=torch.float64)
    weight, bias = network.get_parameter("embed.1.weight"), network.get_parameter("embed.1.bias")
    sequence = nn.functional.conv2d(x.view(4, 3, 4, 6), weight.view(SIZE, 3, 2, 2), bias, stride=2).flatten(2)
    assert sequence.shape == (4, SIZE, 6)
    torch.testing.assert_close(network(x), finish(network, sequence.transpose(1, 2)), rtol=1e-10, atol=1e-12)


def test_the_order_of_tokens_matters() -> None:
    network = transformer(None, 7, inputs=5)
    x = torch.tensor([[0, 1, 2, 3, 4]])
    assert not torch.allclose(network(x), network(x.flip(1)))
    network.position.weight.data.zero_()
    torch.testing.assert_close(network(x), network(x.flip(1)))


def test_parameters() -> None:
    # Of a block: two normalisations, query, key and value, their combination, and the MLP.
    block = 2 * 2 * SIZE + 3 * SIZE * (SIZE + 1) + SIZE * (SIZE + 1) + 4 * SIZE * (SIZE + 1) + SIZE * (4 * SIZE + 1)
    rest = 2 * SIZE + 3 * (SIZE + 1)
    assert count_parameters(transformer(None, 7, inputs=5)) == 7 * SIZE + 5 * SIZE + 2 * block + rest
    assert count_parameters(transformer((6, 2, 2), depth=1)) == (6 + 1) * SIZE + 4 * SIZE + block + rest


def test_patches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"^model\.patch=4: must divide the sides of a row, 4 x 6$"):
        transformer((1, 4, 6), patch=4)
    with pytest.raises(UserError, match=r"^model\.patch=5: must divide the sides of a row, 24$"):
        transformer(None, patch=5)
    with pytest.raises(UserError, match=r"^model\.patch=2: the inputs are token numbers; allowed is 1$"):
        transformer(None, 7, patch=2)
