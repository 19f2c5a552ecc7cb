"""Files that fanin streamed, as PyTorch's users read them."""

import pytest
import torch
import torch.distributed.checkpoint as dcp
import transformers
from safetensors.torch import load_file

import fanin.torch as ft
from fanin.materialize import materialize

transformers.logging.set_verbosity_error()
CONFIG = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=61, n_positions=16)


@pytest.fixture(scope="module")
def model():
    return transformers.GPT2LMHeadModel(CONFIG)


@pytest.fixture(scope="module")
def plan(model):
    return ft.initialize(model, "gpt2", seed=3)


@pytest.fixture
def folder(plan, model, tmp_path):
    written = materialize(plan, tmp_path, max_shard_size=30_000, workers=2)
    assert len(written.files) > 2
    model.config.save_pretrained(tmp_path)
    return tmp_path


def same(one, two):
    assert one.keys() == two.keys()
    return all(torch.equal(values, two[name]) for name, values in one.items())


def test_transformers_loads_them_and_ties_the_head(folder, model):
    loaded, info = transformers.GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert same(dict(loaded.named_parameters()), dict(model.named_parameters()))
    assert loaded.lm_head.weight is loaded.transformer.wte.weight


def test_distributed_checkpoint_loads_them(folder, model):
    fresh = transformers.GPT2LMHeadModel(CONFIG)
    state = {name: value for name, value in fresh.state_dict().items() if name != "lm_head.weight"}
    assert not same(dict(fresh.named_parameters()), dict(model.named_parameters()))
    with pytest.warns(UserWarning, match="load in a single process"):
        dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=True)
    assert same(state, {name: model.state_dict()[name] for name in state})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_every_dtype_is_read_as_it_is(tmp_path, dtype):
    layer = torch.nn.Linear(5, 3, bias=False)
    layer.weight = torch.nn.Parameter(torch.empty(3, 5, dtype=dtype), requires_grad=False)
    plan = ft.initialize(layer, "he_normal", seed=0)
    materialize(plan, tmp_path)
    held = load_file(tmp_path / "model.safetensors")["weight"]
    assert held.dtype == dtype
    assert held.view(torch.uint8).equal(layer.weight.view(torch.uint8))
