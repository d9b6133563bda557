import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distil.core.errors import ModelError
from distil.models.builtin import ConvNet, Mlp
from distil.models.describe import ModelDescription, describe_model


def test_an_mlp_by_hand() -> None:
    model = Mlp(num_inputs=64, widths=(32, 16), num_classes=10, dropout=0.1, input_dropout=0.1)
    parameters = 64 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10
    assert describe_model(model, torch.randn(5, 1, 8, 8)) == ModelDescription(
        num_classes=10,
        num_parameters=parameters,
        size_bytes=4 * parameters,
        multiply_accumulates=64 * 32 + 32 * 16 + 16 * 10,
    )


def test_a_convnet_by_hand() -> None:
    model = ConvNet(channels=3, widths=(4, 6), num_classes=10, dropout=0.0)
    weights = 4 * 3 * 9 + 2 * 4 + 6 * 4 * 9 + 2 * 6 + 6 * 10 + 10
    buffers = 2 * 4 + 2 * 6  # running means and variances, float32; and a step counter each, int64
    described = describe_model(model, torch.randn(1, 3, 8, 8))
    assert described.num_parameters == weights
    assert described.size_bytes == 4 * (weights + buffers) + 8 * 2
    assert described.multiply_accumulates == 64 * 4 * 3 * 9 + 16 * 6 * 4 * 9 + 6 * 10


class Attention(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer = nn.MultiheadAttention(16, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        match self.kind:
            case "function":
                heads = tokens.view(len(tokens), -1, 2, 8).transpose(1, 2)
                said = F.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)
            case "module":
                said = self.layer(tokens, tokens, tokens, need_weights=False)[0]
            case _:
                said = self.encoder(tokens)
        return said.mean(dim=1)


PRODUCTS = 2 * 5 * 5 * 16  # queries by keys, and weights by values, of all heads together
PROJECTIONS = 4 * 5 * 16 * 16
COSTS = {"function": PRODUCTS, "module": PRODUCTS + PROJECTIONS, "encoder": PRODUCTS + PROJECTIONS + 2 * 5 * 16 * 32}


@pytest.mark.parametrize(("kind", "cost"), COSTS.items())
def test_attention_is_counted_in_whatever_way_it_is_written(kind: str, cost: int) -> None:
    assert describe_model(Attention(kind), torch.randn(3, 5, 16)).multiply_accumulates == cost


def test_the_cost_is_that_of_one_example() -> None:
    model = Mlp(num_inputs=4, widths=(3,), num_classes=2, dropout=0.0, input_dropout=0.0)
    costs = {describe_model(model, torch.randn(size, 1, 2, 2)).multiply_accumulates for size in (1, 8)}
    assert costs == {4 * 3 + 3 * 2}


def test_15_the_model_is_left_as_it_was() -> None:
    model = ConvNet(channels=1, widths=(4,), num_classes=3, dropout=0.5).train()
    model.body[1].eval()  # somebody froze the batch normalisation
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    describe_model(model, torch.randn(4, 1, 6, 6))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_20_torch_is_left_as_it_was_also_after_an_error() -> None:
    def state() -> tuple[bool, ...]:
        cuda = torch.backends.cuda
        return torch.backends.mha.get_fastpath_enabled(), cuda.flash_sdp_enabled(), cuda.math_sdp_enabled()

    before = state()
    describe_model(Attention("encoder"), torch.randn(1, 5, 16))
    assert state() == before
    with pytest.raises(ModelError):
        describe_model(Attention("encoder"), torch.randn(1, 5, 7))
    assert state() == before


def test_an_input_that_does_not_fit_is_named() -> None:
    model = Mlp(num_inputs=4, widths=(3,), num_classes=2, dropout=0.0, input_dropout=0.0)
    with pytest.raises(ModelError, match=r"Mlp cannot take an input of shape \[1, 3, 3\]"):
        describe_model(model, torch.randn(1, 1, 3, 3))


def test_a_size_that_timm_asserts_is_named() -> None:
    import timm

    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=32, depth=1)
    with pytest.raises(ModelError, match=r"VisionTransformer cannot take an input of shape \[3, 64, 64\]: .*64"):
        describe_model(model, torch.randn(1, 3, 64, 64))


class Odd(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, images: Tensor) -> object:
        return self.output


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (torch.zeros(1, 3, 2), r"shape \[1, 3, 2\]"),
        ({"logits": torch.zeros(1, 3)}, "dict"),
        (torch.zeros(3), r"shape \[3\]"),
    ],
)
def test_an_output_that_is_no_row_of_scores_is_refused(output: object, found: str) -> None:
    with pytest.raises(ModelError, match=f"Odd gives {found}; image classification"):
        describe_model(Odd(output), torch.zeros(1, 1, 2, 2))
