"""One seed, one network: a small Llama under FSDP2, tensor parallelism, and both, at any world size.

``python examples/one_seed_one_network.py --world 1 2 4 8`` starts so many ranks with gloo, builds the model
on the meta device, shards it, and initializes it from one seed. Each layout's gathered weights have the same
SHA-256, and twenty steps of training the same losses. Beside it ``torch.nn.init`` on the same shards after
the same ``torch.manual_seed``.
"""

import argparse
import hashlib
import json
import logging
import os
import sys
import time
import traceback
import warnings
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import transformers
from rich.console import Console
from rich.table import Table
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import fanin.torch as ft

SEED = 7
PICTURE = Path(__file__).resolve().parent.parent / "docs" / "one_seed_one_network.svg"
TENSOR_PARALLEL = {
    "self_attn.q_proj": ColwiseParallel,
    "self_attn.k_proj": ColwiseParallel,
    "self_attn.v_proj": ColwiseParallel,
    "self_attn.o_proj": RowwiseParallel,
    "mlp.gate_proj": ColwiseParallel,
    "mlp.up_proj": ColwiseParallel,
    "mlp.down_proj": RowwiseParallel,
}
COLOURS = {"one process": "#1f2328", "FSDP2": "#1f77b4", "TP": "#d1690e", "FSDP2 x TP": "#2a9d5c"}
DASHES = {1: "-", 2: "-", 4: "--", 8: ":"}


def llama():
    sizes = {"hidden_size": 128, "intermediate_size": 352, "vocab_size": 512, "max_position_embeddings": 64}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8, "num_hidden_layers": 4}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads))


# --- layouts -------------------------------------------------------------------------------------


def fsdp(model, mesh):
    for block in model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def tensor_parallel(model, mesh):
    for block in model.model.layers:
        parallelize_module(block, mesh, {name: style() for name, style in TENSOR_PARALLEL.items()})


def layouts(world):
    """{name: (data-parallel ranks, what shards a model)} for a world of this size."""
    if world == 1:
        return {"one process": (1, lambda model: None)}
    flat = init_device_mesh("cpu", (world,))
    found = {
        "FSDP2": (world, lambda model: fsdp(model, flat)),
        "TP": (1, lambda model: tensor_parallel(model, flat)),
    }
    if world >= 4 and world % 2 == 0:
        grid = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("dp", "tp"))

        def both(model):
            tensor_parallel(model, grid["tp"])
            fsdp(model, grid["dp"])

        found["FSDP2 x TP"] = (2, both)
    return found


# --- the two ways to initialize ------------------------------------------------------------------


def by_fanin(shard):
    """Each rank makes its own shards of a model that is nowhere yet."""
    with torch.device("meta"):
        model = llama()
    shard(model)
    start = time.process_time()
    ft.initialize(model, "llama", seed=SEED, device="cpu")
    return model, time.process_time() - start


def by_torch(shard):
    """The usual loop over the parameters, after the same ``torch.manual_seed`` on each rank."""
    model = llama()
    shard(model)
    torch.manual_seed(SEED)
    start = time.process_time()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.02)
        else:
            torch.nn.init.ones_(parameter)
    return model, time.process_time() - start


# --- one rank ------------------------------------------------------------------------------------


def local(parameter):
    """What this rank holds of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def digest(model):
    """One SHA-256 of all weights, gathered."""
    total = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        total.update(name.encode() + whole.detach().contiguous().numpy().tobytes())
    return total.hexdigest()


def train(model, parts, steps):
    """The loss of each step over a batch of eight sequences, each counting up by 1, 2, 3 or 4."""
    draws = torch.Generator().manual_seed(0)
    first, stride = (torch.randint(*ends, (8, 1), generator=draws) for ends in ((0, 512), (1, 5)))
    mine = dist.get_rank() * parts // dist.get_world_size()
    batch = ((first + stride * torch.arange(32)) % 512).chunk(parts)[mine]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, foreach=False)
    losses = []
    for _ in range(steps):
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        losses.append(total.item() / dist.get_world_size())
    return losses


def measure(world, steps):
    """{layout: {way: what it gave}} on one rank."""
    found = {}
    for name, (parts, shard) in layouts(world).items():
        found[name] = {}
        for way in (by_fanin, by_torch):
            model, seconds = way(shard)
            found[name][way.__name__] = {
                "seconds": seconds,
                "bytes": sum(local(parameter).nbytes for parameter in model.parameters()),
                "digest": digest(model),
                "losses": train(model, parts, steps),
            }
    return found


def launch(world, work, *arguments, seconds=300):
    """What ``work(world, *arguments)`` returns on each of so many ranks, as JSON takes it.

    Ranks are forks: eight imports of torch would take longer than the work.
    """
    with TemporaryDirectory() as folder:
        children = []
        sys.stdout.flush()
        for rank in range(world):
            pid = os.fork()
            if pid == 0:
                _rank(rank, world, Path(folder), timedelta(seconds=seconds), work, arguments)
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        if any(codes):
            raise RuntimeError(
                f"of {world} ranks these failed: {[at for at, code in enumerate(codes) if code]}"
            )
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(world)]


def _rank(rank, world, folder, timeout, work, arguments):
    """The life of one rank. It ends here: a fork must not go back into its parent's code."""
    code = 1
    try:
        os.environ["LOCAL_WORLD_SIZE"] = str(world)  # as torchrun says it
        torch.set_num_threads(1)
        store = f"file://{folder}/store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=timeout)
        (folder / f"{rank}.json").write_text(json.dumps(work(world, *arguments)))
        dist.destroy_process_group()
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# --- what was found ------------------------------------------------------------------------------


def table(runs):
    """``runs``: [(world, layout, what each rank found)]."""
    made = Table(box=None, pad_edge=False, title=f"seed {SEED}: SHA-256 of all gathered weights")
    columns = {"ranks": "right", "layout": "left", "fanin": "left", "loss": "right"}
    columns |= {"ms/rank": "right", "KiB/rank": "right", "torch.nn.init": "left"}
    for column, justify in columns.items():
        made.add_column(column, justify=justify, no_wrap=True)
    for world, layout, ranks in runs:
        ours, theirs = ([rank[way] for rank in ranks] for way in ("by_fanin", "by_torch"))
        made.add_row(
            str(world),
            layout,
            ours[0]["digest"][:12],
            f"{ours[0]['losses'][-1]:.5f}",
            f"{max(rank['seconds'] for rank in ours) * 1e3:.0f}",
            f"{max(rank['bytes'] for rank in ours) / 1024:,.0f}",
            theirs[0]["digest"][:12],
        )
    return made


def draw(runs, path):
    """The losses of every layout on top of each other, and how far each is from the first."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    style = {"svg.fonttype": "none", "svg.hashsalt": "fanin", "font.size": 9, "axes.titlelocation": "left"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")  # on white: the same in light and dark
        curves, apart = figure.subplots(1, 2)
        for way, width, opacity in (("by_torch", 0.9, 0.45), ("by_fanin", 1.7, 1.0)):
            first = runs[0][2][0][way]["losses"]
            for world, layout, ranks in runs:
                losses = ranks[0][way]["losses"]
                look = {"color": COLOURS[layout], "linestyle": DASHES.get(world, "-."), "alpha": opacity}
                steps = range(1, len(losses) + 1)
                label = f"{layout}, {world} ranks" if world > 1 else layout
                curves.plot(
                    steps, losses, linewidth=width, **look, label=label if way == "by_fanin" else None
                )
                if world > 1:
                    far = [max(abs(a - b), 1e-8) for a, b in zip(losses, first, strict=True)]
                    apart.plot(steps, far, linewidth=width, **look)
        curves.set(title="Loss, from one seed in every layout", xlabel="training step")
        curves.legend(frameon=False, fontsize=7.5, title="fanin; thin: torch.nn.init", title_fontsize=7.5)
        apart.set(title="How far from the losses of one process", xlabel="training step", yscale="log")
        apart.set_ylim(1e-8, 10)
        apart.text(0.03, 0.94, "torch.nn.init: another network each time", transform=apart.transAxes)
        apart.text(0.03, 0.5, "fanin: one network, sums in another order", transform=apart.transAxes)
        for axes in (curves, apart):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of ranks")
    parser.add_argument("--steps", type=int, default=20, help="of training")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where the SVG goes")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", "DTensor random operators may not have complete support")
    logging.getLogger("torch.distributed.tensor").setLevel(logging.ERROR)  # how FSDP2 x TP gathers
    runs = []
    for world in arguments.world:
        ranks = launch(world, measure, arguments.steps)
        runs += [(world, layout, [rank[layout] for rank in ranks]) for layout in ranks[0]]
    Console().print(table(runs))
    draw(runs, arguments.picture)
    ours, theirs = ({run[2][0][way]["digest"] for run in runs} for way in ("by_fanin", "by_torch"))
    first, *others = (ranks[0]["by_fanin"]["losses"] for _, _, ranks in runs)
    apart = max((abs(a - b) for losses in others for a, b in zip(losses, first, strict=True)), default=0.0)
    made = f"fanin made {len(ours)} network, torch.nn.init {len(theirs)}"
    print(f"{len(runs)} layouts: {made}; fanin's losses differ by {apart:.0e} at most")
    sys.exit(0 if len(ours) == 1 else 1)


if __name__ == "__main__":
    main()
