"""The network's shape, its refusals, and what of the paper it keeps."""

import pytest
import torch

from lungshift.errors import ProtocolError
from lungshift.learn.unet import UNet


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group"])
def test_a_slice_comes_out_as_large_as_it_went_in_with_one_channel(norm):
    network = UNet(2, width=4, norm=norm)
    assert network(torch.zeros(3, 2, 32, 48)).shape == (3, 1, 32, 48)


def test_the_paper_network_has_the_parameters_of_the_classic_unet():
    network = UNet(2, width=64, levels=4)
    assert sum(weight.numel() for weight in network.parameters()) == 31_031_169


def test_without_normalisation_a_slice_does_not_see_the_rest_of_the_batch():
    torch.manual_seed(0)
    network, slices = UNet(1, width=4, levels=2), torch.randn(3, 1, 16, 16)
    alone = torch.cat([network(one[None]) for one in slices])
    torch.testing.assert_close(network(slices), alone)


def test_every_weight_learns():
    network = UNet(2, width=4, levels=3, norm="batch")
    network(torch.randn(2, 2, 16, 16)).square().mean().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_logits_are_not_squeezed_into_probabilities():
    network = UNet(1, width=4, levels=1)
    torch.nn.init.constant_(network.last.bias, 7.0)
    torch.nn.init.zeros_(network.last.weight)
    assert network(torch.zeros(1, 1, 2, 2)).eq(7).all()


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    network, slices = UNet(1, width=4, levels=2, dropout=0.5), torch.randn(1, 1, 16, 16)
    assert not torch.equal(network(slices), network(slices))
    network.eval()
    assert torch.equal(network(slices), network(slices))


@pytest.mark.parametrize("shape", [(30, 32), (32, 40)])
def test_sizes_that_cannot_be_halved_four_times_are_refused_with_both_numbers(shape):
    with pytest.raises(ProtocolError, match=rf"{shape[0]} x {shape[1]} .* multiples of 16"):
        UNet(1, width=2)(torch.zeros(1, 1, *shape))


@pytest.mark.parametrize(
    ("trainable", "left"),
    [("all", {"down", "grow", "up", "last"}), ("decoder", {"grow", "up", "last"}), ("head", {"last"})],
)
def test_what_is_not_trained_is_frozen(trainable, left):
    network = UNet(1, width=4, levels=2, norm="batch")
    for part in network.frozen(trainable):
        part.requires_grad_(False).eval()
    assert {name.split(".")[0] for name, weight in network.named_parameters() if weight.requires_grad} == left
    norms = {
        name.split(".")[0] for name, part in network.named_modules() if "Norm" in str(type(part)) and part.training
    }
    assert norms == left & {"down", "up"}
    assert network.dropout.training == (trainable == "all")
