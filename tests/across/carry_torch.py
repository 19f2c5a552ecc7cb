"""PyTorch's part."""

import carry
import torch
from in_torch import NETWORKS
from safetensors.torch import save_file
from torch import nn

import fanin.torch as ft


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-5)

    def forward(self, x):
        return self.bn(self.conv(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)


class GRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 6, batch_first=True)

    def forward(self, x):
        return self.gru(x)[0]


def build():
    return nn.ModuleDict(
        {name: kind() for name, kind in (NETWORKS | {"norm": Norm, "gru": GRU}).items()}
    ).eval()


@torch.no_grad()
def outputs(model):
    return {name: model[name](torch.from_numpy(batch)).numpy() for name, batch in carry.batches().items()}


@torch.no_grad()
def write(folder):
    model = build()
    for at, (name, tensor) in enumerate(model.state_dict().items()):
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(carry.values(tensor.shape, name, at)))
    model["gru"].gru.bias_hh_l0[-6:] = 0  # what Flax's cell has not: the new gate's second bias
    torch.save(model.state_dict(), folder / "torch_state.pt")
    save_file(model.state_dict(), folder / "torch_state.safetensors")
    ft.plan(model, "keep").save(folder / "torch.json")
    return outputs(model)


def read(file, source):
    model = build()
    plan = ft.transfer(model, file, source=source)
    assert plan.unexpected == ()
    assert ft.verify(model, plan) == []
    return outputs(model)


carry.main("torch", write, read)
