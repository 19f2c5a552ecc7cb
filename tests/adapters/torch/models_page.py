"""docs/models.md: what the plans of `models.MODELS` say. Run it to write the page."""

import re
from collections import Counter
from pathlib import Path

from models import TRANSFORMERS, WRITTEN, Architecture
from torch import nn
from torch.nn.utils import parametrize

import fanin.torch as ft
from fanin.initializers import Initializer
from fanin.model import Tensor
from fanin.plan import Plan

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
HEADING = """# Models

Architectures whose every parameter has a role and the fans of its layer, as the tests find them: small ones,
built from transformers' configs or written out. Parameters are counted as separate ones, however stored.

| model | parameters | layers | what is special |
| --- | ---: | --- | --- |
"""
NOTES = """
*fused*, *stacked*: one stored tensor holds several parameters; each has the name, the fans and so the numbers
of one stored on its own. What nobody stores apart is one parameter: a depthwise convolution over several
projections, projections to or from a low rank, those inside a state space (DeepSeek's `kv_a_proj_with_mqa`,
`kv_b_proj` and `q_b_proj`, Mamba's `in_proj` and `x_proj`).

*own*: the layer defines the start, whatever initializer is used; a recipe's rule may still name it.

- Sinusoidal tables are `fanin.Sinusoidal`; layer scales have their config's value, CLIP's `logit_scale` too.
- SigLIP's `logit_scale` and `logit_bias` start at log 10 and -10 as its authors' do (Zhai et al. 2023, 3.2);
  transformers starts both at 0. RWKV's `time_first` is its authors' log 0.3 and a zigzag, in transformers 1.
- Mamba's `A_log` is log 1, 2, 3, ... and its `D` is 1. The bias of the time step is drawn uniform before the
  softplus, between what gives the config's smallest and largest step. Its authors draw the step log-uniform;
  the two laws agree up to half the step itself.
- Where a gated delta net draws its decays uniform in 0.01 .. 16, every layer has the quantiles of that law,
  one per head.

*offset norm*: the scale is stored as its difference from one, and starts at zero.
"""


def page() -> str:
    rows = [_row(architecture) for architecture in (*TRANSFORMERS, *WRITTEN)]
    return HEADING + "\n".join(rows) + "\n" + NOTES


def _row(architecture: Architecture) -> str:
    model = architecture.build()
    plan = ft.plan(model, "he_normal", seed=0)
    layers = Counter(kind for _, kind in {(row.name.rpartition(".")[0], row.layer) for row in plan.rows})
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(layers.items()))
    special = "; ".join(dict.fromkeys(_special(model, plan)))
    return f"| {architecture.name} | {len(plan.rows)} | {kinds} | {special} |"


def _special(model: nn.Module, plan: Plan) -> list[str]:
    """What sets a model's parameters apart, each said once."""
    found = [_packed(plan, tensor) for tensor in plan.tensors if len(list(plan.parts(tensor))) > 1]
    found += [f"tied: {_last(t.path)} = {', '.join(map(_last, t.ties))}" for t in plan.tensors if t.ties]
    found += [f"padding row: {_last(t.path)}" for t in plan.tensors if t.pieces[0].padding_row is not None]
    pieces = [(tensor.path, piece) for tensor in plan.tensors for piece in tensor.pieces]
    found += [f"own: {_last(path)} {_short(piece.own)}" for path, piece in pieces if piece.own is not None]
    found += ["offset norm" for _, piece in pieces if piece.role == "norm_offset"]
    found += [
        f"parametrized: {type(step).__name__.lstrip('_')}"
        for module in model.modules()
        if parametrize.is_parametrized(module)
        for chain in module.parametrizations.values()
        for step in chain
    ]
    return found


def _packed(plan: Plan, tensor: Tensor) -> str:
    names = [re.sub(r"\.(weight|bias)$", "", row.name) for row, _ in plan.parts(tensor)]
    last = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
    stored = re.sub(r"\.(weight|bias)$", "", tensor.path).rpartition(".")[2]
    fused = f"fused: {stored} = {', '.join(last)}" if len(last) > 1 else f"stacked: {stored}"
    count = len(names) // len(last)
    return f"{fused}, of {count} experts" if count > 1 else fused


def _last(path: str) -> str:
    """The last words of a path that say what it is."""
    words = path.split(".")
    return ".".join(words[-2:] if words[-1] in ("weight", "bias") else words[-1:])


def _short(init: Initializer) -> str:
    shortened = re.sub(r"(\d\.\d{4})\d+", r"\1", re.sub(r"\w+=", "", str(init)))
    return f"`{shortened}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
