import pytest
import torch
from torch import nn

from distil.models.builtin import ConvNet, Mlp


def test_an_mlp_is_linear_layers_with_relu_between() -> None:
    model = Mlp(num_inputs=6, widths=(5, 4), num_classes=3, dropout=0.0, input_dropout=0.0)
    images = torch.randn(2, 1, 2, 3)
    first, second = model.body[1], model.body[3]
    hidden = (images.flatten(1) @ first.weight.T + first.bias).clamp(min=0)
    hidden = (hidden @ second.weight.T + second.bias).clamp(min=0)
    expected = hidden @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(images), expected)


def test_dropout_stands_before_the_first_layer_and_after_each_hidden_one() -> None:
    model = Mlp(num_inputs=6, widths=(5, 4), num_classes=3, dropout=0.5, input_dropout=0.2)
    found = [(type(layer), getattr(layer, "p", None)) for layer in model.body]
    hidden = [(nn.Linear, None), (nn.ReLU, None), (nn.Dropout, 0.5)]
    assert found == [(nn.Flatten, None), (nn.Dropout, 0.2), *hidden, *hidden]


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 8), (28, 28)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_convnet_takes_images_of_any_size(size: tuple[int, int], channels: int) -> None:
    model = ConvNet(channels=channels, widths=(4, 6, 8), num_classes=3, dropout=0.1)
    assert model(torch.randn(2, channels, *size)).shape == (2, 3)


def test_a_convnet_by_hand() -> None:
    model = ConvNet(channels=1, widths=(2,), num_classes=3, dropout=0.0).eval()
    images = torch.randn(2, 1, 3, 3)
    convolution, norm = model.body[0], model.body[1]
    norm.running_mean.copy_(torch.tensor([0.1, -0.2]))
    norm.running_var.copy_(torch.tensor([0.5, 2.0]))
    features = nn.functional.conv2d(images, convolution.weight, padding=1)
    features = (features - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt()
    features = features.clamp(min=0)
    # 2x2 windows of a 3x3 image: the last row and column stand alone
    windows = [features[:, :, r : r + 2, c : c + 2].amax(dim=(2, 3)) for r in (0, 2) for c in (0, 2)]
    expected = model.classifier(torch.stack(windows).mean(dim=0))
    torch.testing.assert_close(model(images), expected)
