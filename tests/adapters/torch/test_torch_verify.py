"""``ft.verify``: what a model holds against what its plan says."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import fanin
import fanin.torch as ft
from fanin.errors import PlanError


def model():
    return nn.Sequential(
        nn.Linear(30, 20), nn.LSTM(20, 8), nn.Conv2d(4, 8, 3), nn.Embedding(9, 5, padding_idx=1)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_an_initialized_model_verifies_whatever_its_strides(dtype):
    made = model().to(dtype=dtype, memory_format=torch.channels_last)
    plan = ft.initialize(made, "orthogonal", seed=0)
    assert ft.verify(made, plan) == []


def test_the_first_element_that_differs_is_named_for_each_tensor(tmp_path):
    made = model()
    plan = ft.initialize(made, "he_normal", seed=0)
    plan.save(tmp_path / "plan.json")
    with torch.no_grad():
        made[0].weight[3, 7] = 1.5
        made[0].weight[4, 0] = 1.5
        made[2].bias[2] = -1
    found = ft.verify(made, tmp_path / "plan.json")
    assert [(mismatch.path, mismatch.index) for mismatch in found] == [("0.weight", (3, 7)), ("2.bias", (2,))]
    assert str(found[0]).startswith("0.weight[3, 7]: 1.5, planned ")
    assert str(found[1]) == "2.bias[2]: -1.0, planned 0.0"


def test_what_the_plan_keeps_is_not_compared():
    made = model()
    plan = ft.initialize(made, fanin.Recipe([("0.bias", "keep"), ("*", "he_normal")]), seed=0)
    with torch.no_grad():
        made[0].bias.fill_(3)
    assert ft.verify(made, plan) == []


def test_nothing_is_changed_by_verifying():
    made = weight_norm(nn.Linear(5, 4))
    plan = ft.initialize(made, "he_normal", seed=0)
    before = {name: (value.clone(), value._version) for name, value in made.state_dict().items()}
    assert ft.verify(made, plan) == []
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name][0])
    with torch.no_grad():
        made.parametrizations.weight.original0.mul_(2)
    assert [mismatch.path for mismatch in ft.verify(made, plan)] == ["weight"]


def test_a_model_on_the_meta_device_has_no_values_and_another_models_plan_is_refused():
    plan = ft.plan(model(), "he_normal", seed=0)
    with torch.device("meta"):
        lost = model()
    found = ft.verify(lost, plan)
    assert len(found) == len(plan.tensors)
    assert "meta device" in str(found[0])
    with pytest.raises(PlanError, match="is not in the"):
        ft.verify(nn.Linear(2, 2), plan)
