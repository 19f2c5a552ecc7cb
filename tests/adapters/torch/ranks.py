"""Real ranks: a small llama and a mixture of experts, sharded in every usual way, as one process makes them.

``python ranks.py WORLD FOLDER`` forks WORLD processes with gloo; rank 0 writes what it found as JSON. Forking
after the imports keeps eight ranks on two cores bearable.
"""

import hashlib
import json
import os
import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
import transformers
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import fanin
import fanin.torch as ft

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples"))
from one_seed_one_network import fsdp, tensor_parallel

SEED = 5


def llama():
    sizes = {"hidden_size": 48, "intermediate_size": 80, "vocab_size": 101, "max_position_embeddings": 32}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8, "num_hidden_layers": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads))


def padded_llama():
    """The same llama, its vocabulary padded so that it can be cut evenly."""
    model = llama()
    model.resize_token_embeddings(104, mean_resizing=False)
    return model


UNPADDED = fanin.Recipe(
    [],
    base="gpt2",
    unpadded={"model.embed_tokens.weight": (101, 48), "lm_head.weight": (101, 48)},
)


def mixtral():
    sizes = {"hidden_size": 32, "intermediate_size": 40, "vocab_size": 67, "max_position_embeddings": 32}
    heads = {
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_hidden_layers": 2,
        "num_local_experts": 4,
    }
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes, **heads))


def experts(model, mesh):
    """Each rank holds whole experts."""
    for module in model.modules():
        if type(module).__name__ == "MixtralExperts":
            for name, parameter in list(module.named_parameters(recurse=False)):
                whole = distribute_tensor(parameter.detach(), mesh, [Shard(0)], src_data_rank=None)
                setattr(module, name, torch.nn.Parameter(whole))


def layouts(world):
    """(name, model, what shards it) for a world of this size."""
    flat = init_device_mesh("cpu", (world,))
    yield "fsdp", llama, lambda model: fsdp(model, flat)
    yield "fsdp", mixtral, lambda model: fsdp(model, flat)
    if world in (1, 2, 4, 8):
        yield "tp", llama, lambda model: tensor_parallel(model, flat)
        yield "tp", padded_llama, lambda model: tensor_parallel(model, flat)
    if world in (1, 2, 4):
        yield "experts", mixtral, lambda model: experts(model, flat)
    if world in (4, 8):
        grid = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("dp", "tp"))

        def both(model):
            tensor_parallel(model, grid["tp"])
            fsdp(model, grid["dp"])

        yield "fsdp x tp", llama, both
        yield "hsdp", llama, lambda model: fsdp(model, grid)
    if world == 8:
        cube = init_device_mesh("cpu", (2, 2, 2), mesh_dim_names=("replicas", "dp", "tp"))

        def all_three(model):
            tensor_parallel(model, cube["tp"])
            fsdp(model, cube["replicas", "dp"])

        yield "hsdp x tp", llama, all_three


class Stage(torch.nn.Sequential):
    """A pipeline stage whose names were counted afresh."""

    def __init__(self, last):
        super().__init__(torch.nn.Linear(4, 4), torch.nn.Linear(4, 5 if last else 4))
        if last:
            self.head = torch.nn.Linear(5, 3)


def stages(rank, world):
    """What a two-stage pipeline makes, with and without a prefix, and ranks that differ in the seed."""
    found = {"layout": "stages"}
    mesh = init_device_mesh("cpu", (world,))
    stage = Stage(last=rank >= world // 2)
    for name, parameter in list(stage.named_parameters()):
        module, _, attribute = name.rpartition(".")
        placed = DTensor.from_local(parameter.detach(), mesh, [Replicate()], run_check=False)
        setattr(stage.get_submodule(module), attribute, torch.nn.Parameter(placed))
    before = [parameter.to_local().clone() for parameter in stage.parameters()]
    for what, arguments in (
        ("without prefix", {"seed": 1}),
        ("other seeds", {"seed": rank, "name_prefix": f"{int(rank >= world // 2)}."}),
        ("other recipes", {"seed": 1, "recipe": ("he_normal", "zeros")[rank % 2]}),
    ):
        recipe = arguments.pop("recipe", "he_normal")
        try:
            ft.initialize(stage, recipe, **arguments)
            found[what] = "no error"
        except fanin.PlanError as error:
            found[what] = str(error)
    found["untouched"] = all(
        torch.equal(old, new.to_local()) for old, new in zip(before, stage.parameters(), strict=True)
    )
    plan = ft.initialize(stage, "he_normal", seed=1, name_prefix=f"stage{int(rank >= world // 2)}.")
    found["names"] = [row.name for row in plan.rows]
    found["verified"] = ft.verify(stage, plan, name_prefix=f"stage{int(rank >= world // 2)}.") == []
    return found


def digest(tensors):
    """One SHA-256 of named full tensors."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(name.encode() + tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def gathered(model):
    return {
        name: without_padding(parameter.full_tensor() if isinstance(parameter, DTensor) else parameter)
        for name, parameter in model.named_parameters()
    }


def without_padding(tensor):
    """The rows of a padded vocabulary that are no padding; what is, must be zero."""
    padded = tensor.shape == (104, 48) and not tensor[101:].any()
    return tensor[:101] if padded else tensor


def check(name, build, shard, expected):
    """Initialize on the meta device and in memory; what differs from one process, and what a step costs."""
    found = {"layout": name, "model": build.__name__}
    for where in ("meta", "cpu"):
        with torch.device(where):
            model = build()
        shard(model)
        recipe = UNPADDED if build is padded_llama else "gpt2"
        plan = ft.initialize(model, recipe, seed=SEED, device="cpu")
        found[where] = digest(gathered(model)) == expected[build.__name__]
        found[f"{where} verified"] = ft.verify(model, plan) == []
        held = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]
        found["elements"] = sum(tensor.numel() for tensor in held)
        if name == "experts":  # transformers runs sharded experts by other means
            continue
        loss = model(torch.arange(12).reshape(2, 6), labels=torch.arange(12).reshape(2, 6)).loss
        loss.backward()
        found[f"{where} loss"] = float(loss.detach())
    return found


def rank_main(rank, world, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.set_num_threads(1)
    expected = {}
    for build in (llama, mixtral):
        model = build()
        ft.initialize(model, "gpt2", seed=SEED)
        expected[build.__name__] = digest(gathered(model))
    expected["padded_llama"] = expected["llama"]
    found = [check(*layout, expected) for layout in layouts(world)]
    if world == 2:
        found.append(stages(rank, world))
    every = [None] * world
    dist.all_gather_object(every, found)
    if rank == 0:
        (Path(folder) / "found.json").write_text(json.dumps(every))
    dist.destroy_process_group()


def main():
    world, folder = int(sys.argv[1]), sys.argv[2]
    transformers.logging.set_verbosity_error()
    children = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                rank_main(rank, world, folder)
                code = 0
            except Exception:  # a fork must not go back into its parent's code
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(code)
        children.append(pid)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
