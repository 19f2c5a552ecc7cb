"""Models calibrated on one batch: in three frameworks, and beside AnyInit.

    python benchmarks/calibrate.py [frameworks | peers] [--turns 3]

`frameworks` prints each layer's scale before and after LSUV, how many times the model ran, and its processor
time in runs of the model; one process per framework. `peers` starts the models of PyTorch by four ways, one
process for each way, the ways taking turns, and measures what all of them are for: the standard deviation of
what layers put out before their activations (and of what goes into gates), which is to be 1, and whether
gradients keep their size.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

FRAMEWORKS = {  # {framework: the backend of Keras, if it is that}
    "torch": None,
    "keras on tensorflow": "tensorflow",
    "keras on jax": "jax",
    "keras on torch": "torch",
    "flax": None,
}
WAYS = ("fanin lsuv", "fanin analytic", "AnyInit empirical", "AnyInit analytic")
MIB = 1 << 20


# --- models: {name: (model, batch, the recipe it starts by)} --------------------------------------


def torch_models():
    import torch
    from torch import nn
    from transformers import GPT2Config, GPT2LMHeadModel

    def normal(*shape):
        return torch.randn(*shape, generator=torch.Generator().manual_seed(0))

    def mlp(width=256, depth=50):
        hidden = [each for _ in range(depth) for each in (nn.Linear(width, width), nn.GELU())]
        return nn.Sequential(*hidden, nn.Linear(width, 10))

    class Block(nn.Module):
        def __init__(self, n, m, stride):
            super().__init__()
            self.first, self.second = nn.Conv2d(n, m, 3, stride, 1), nn.Conv2d(m, m, 3, 1, 1)
            self.skip = nn.Conv2d(n, m, 1, stride) if n != m else nn.Identity()

        def forward(self, x):
            return self.second(torch.relu(self.first(torch.relu(x)))) + self.skip(x)

    def resnet():
        sizes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)]
        blocks = [Block(*size) for size in sizes]
        return nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10)
        )

    class UNet(nn.Module):
        def __init__(self, widths=(32, 64, 128)):
            super().__init__()
            pairs = list(zip((3, *widths), widths, strict=False))
            self.down = nn.ModuleList(nn.Conv2d(n, m, 3, padding=1) for n, m in pairs)
            self.up = nn.ModuleList(nn.ConvTranspose2d(m, n, 2, 2) for n, m in pairs[:0:-1])
            self.merge = nn.ModuleList(nn.Conv2d(2 * n, n, 3, padding=1) for n, _ in pairs[:0:-1])
            self.head = nn.Conv2d(widths[0], 2, 1)

        def forward(self, x):
            held = []
            for at, layer in enumerate(self.down):
                x = torch.relu(layer(nn.functional.avg_pool2d(x, 2) if at else x))
                held.append(x)
            for skip, up, merge in zip(held[-2::-1], self.up, self.merge, strict=True):
                x = torch.relu(merge(torch.cat([skip, torch.relu(up(x))], 1)))
            return self.head(x)

    class Stacked(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = (nn.LSTM(n, 256, batch_first=True) for n in (64, 256))
            self.head = nn.Linear(256, 10)

        def forward(self, x):
            return self.head(self.two(self.one(x)[0])[0][:, -1])

    def gpt2():
        config = GPT2Config(attn_implementation="eager")
        config.use_cache = False
        return GPT2LMHeadModel(config)

    tokens = torch.arange(128).reshape(2, 64) * 997 % 50257
    return {
        "GELU MLP, 50 layers": (mlp, normal(256, 256), "lecun_normal"),
        "ResNet without norms": (resnet, normal(32, 3, 32, 32), "he_normal"),
        "U-Net": (UNet, normal(8, 3, 64, 64), "he_normal"),
        "stacked LSTM": (Stacked, normal(64, 32, 64), "glorot_uniform"),
        "GPT-2 small": (gpt2, {"input_ids": tokens}, "gpt2"),
    }


def keras_models():
    import keras
    import numpy as np
    from keras import layers

    def normal(*shape):
        return np.random.default_rng(0).standard_normal(shape, np.float32)

    def mlp():
        hidden = [layers.Dense(256, "gelu") for _ in range(50)]
        return keras.Sequential([keras.Input((256,)), *hidden, layers.Dense(10)])

    def resnet():
        start = keras.Input((32, 32, 3))
        x = layers.Conv2D(64, 3, padding="same")(start)
        for width, stride in ((64, 1), (64, 1), (128, 2), (128, 1)):
            inner = layers.Conv2D(width, 3, stride, padding="same", activation="relu")(layers.ReLU()(x))
            skip = x if stride == 1 else layers.Conv2D(width, 1, stride, padding="same")(x)
            x = layers.Add()([layers.Conv2D(width, 3, padding="same")(inner), skip])
        return keras.Model(start, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))

    def lstm():
        stacked = [layers.LSTM(128, return_sequences=True), layers.LSTM(128)]
        return keras.Sequential([keras.Input((16, 64)), *stacked, layers.Dense(10)])

    return {
        "GELU MLP, 50 layers": (mlp, normal(256, 256), "lecun_normal"),
        "ResNet without norms": (resnet, normal(16, 32, 32, 3), "he_normal"),
        "stacked LSTM": (lstm, normal(64, 16, 64), "glorot_uniform"),
    }


def flax_models():
    import jax
    from flax import linen, nnx

    def normal(*shape):
        return jax.random.normal(jax.random.key(0), shape)

    class MLP(linen.Module):
        @linen.compact
        def __call__(self, x):
            for _ in range(50):
                x = linen.gelu(linen.Dense(256)(x), approximate=False)
            return linen.Dense(10)(x)

    class Block(nnx.Module):
        def __init__(self, n, m, stride, rngs):
            self.first = nnx.Conv(n, m, (3, 3), stride, rngs=rngs)
            self.second = nnx.Conv(m, m, (3, 3), rngs=rngs)
            self.skip = nnx.Conv(n, m, (1, 1), stride, rngs=rngs) if n != m else None

        def __call__(self, x):
            inner = self.second(nnx.relu(self.first(nnx.relu(x))))
            return inner + (x if self.skip is None else self.skip(x))

    class ResNet(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            sizes = ((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1))
            self.first = nnx.Conv(3, 64, (3, 3), rngs=rngs)
            self.blocks = nnx.List([Block(*size, rngs) for size in sizes])
            self.head = nnx.Linear(128, 10, rngs=rngs)

        def __call__(self, x):
            x = self.first(x)
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean((1, 2)))

    class Stacked(linen.Module):
        @linen.compact
        def __call__(self, x):
            for _ in range(2):
                x = linen.RNN(linen.LSTMCell(128))(x)
            return linen.Dense(10)(x[:, -1])

    return {
        "GELU MLP, 50 layers": (MLP, normal(256, 256), "lecun_normal"),
        "ResNet without norms": (ResNet, normal(16, 32, 32, 3), "he_normal"),
        "stacked LSTM": (Stacked, normal(64, 16, 64), "glorot_uniform"),
    }


# --- in three frameworks --------------------------------------------------------------------------


def counted(engine):
    """Count the runs of a model: the list gets an entry for each."""
    runs = []
    for name in ("trace", "forward"):
        method = getattr(engine, name)

        def again(*arguments, method=method, **words):
            runs.append(method)
            return method(*arguments, **words)

        setattr(engine, name, again)
    return runs


def processor_time(call, *arguments, **words):
    """Seconds of all threads: other work on the machine does not count. And what the call gave."""
    began = time.process_time()
    result = call(*arguments, **words)
    return time.process_time() - began, result


def in_framework(framework):
    """Print a line for each of a framework's models."""
    if framework == "torch":
        import torch

        import fanin.torch as verbs
        from fanin.torch._calibrate import Engine

        models = torch_models()

        def run(model, batch):
            with torch.no_grad():
                return model(**batch) if isinstance(batch, dict) else model(batch)

    elif framework == "flax":
        import jax
        from flax import linen

        import fanin.jax as verbs
        from fanin.jax._calibrate import Engine

        models = flax_models()

        def run(model, batch):
            module, params = model
            return jax.block_until_ready(module.apply(params, batch) if params else module(batch))

    else:
        import fanin.keras as verbs
        from fanin.keras._calibrate import Engine

        models = keras_models()

        def run(model, batch):
            return model(batch)

    runs = counted(Engine)
    for name, (build, batch, recipe) in models.items():
        model, params = build(), None
        if framework == "flax" and isinstance(model, linen.Module):
            params = verbs.initialize(model, recipe, inputs=batch, seed=0)
        else:
            verbs.initialize(model, recipe, seed=0)
        words = {} if params is None else {"params": params}
        held = (model, params) if framework == "flax" else model
        forward = min(processor_time(run, held, batch)[0] for _ in range(3))
        verbs.calibrate(model, batch, **words).undo()  # what is compiled on first use is not counted
        runs.clear()
        seconds, result = processor_time(verbs.calibrate, model, batch, **words)
        print(f"\n{framework}: {name}\n{result}")
        before, after = (
            max(abs(math.log10(getattr(each, when) / each.target)) for each in result.scales)
            for when in ("before", "after")
        )
        groups = len(result.scales)
        said = (
            framework,
            name,
            groups,
            f"{before:.2f}",
            f"{after:.0e}",
            len(runs),
            f"{len(runs) / groups:.2f}",
        )
        print(json.dumps([*said, f"{seconds / forward / groups:.2f}"]), flush=True)


# --- beside AnyInit -------------------------------------------------------------------------------


def memory(what):
    """Bytes that the process has (VmRSS) or has had since `forget` (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def forget():
    Path("/proc/self/clear_refs").write_text("5")


def start(way, model, batch, recipe):
    """Initialize a model of PyTorch, weights and all."""
    tool, method = way.split()
    if tool == "fanin":
        import fanin.torch as ft

        ft.initialize(model, recipe, seed=0)
        ft.calibrate(model, batch, method)
    else:
        import anyinit

        anyinit.initialize(model, method, batch, seed=0)


def in_way(way):
    """Print what one way does to each model, as JSON."""
    import torch

    for name, (build, batch, recipe) in torch_models().items():
        torch.manual_seed(0)
        model = build()
        warm = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        start(way, warm, torch.randn(16, 8), "he_normal")  # what is loaded on first use is not counted
        forget()
        held, began, error = memory("VmRSS"), time.process_time(), None
        try:
            start(way, model, batch, recipe)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}".splitlines()[0]
        seconds, peak = time.process_time() - began, memory("VmHWM") - held
        found = {"model": name, "seconds": seconds, "peak": peak, "error": error}
        print(json.dumps(found if error else found | measured(model, batch)), flush=True)


def measured(model, batch):
    """In decades: how far the worst scale is off 1, how far scales are apart, how gradients grow back."""
    import fanin.torch as ft
    from fanin.calibrate.layers import layers

    trace = ft.trace(model, batch)
    chosen, _ = layers(trace)
    inner = {layer.name for layer in chosen if layer.share == 1}
    before = ft.calibrate(model, batch).before  # by fanin's eyes, whoever made the model
    decades = [math.log10(before[name]) for name in inner]
    weighted = [
        step for step in trace.operations if step.kind in ("dense", "conv", "recurrent") and step.parameters
    ]
    first, last = (step.backward.rms * math.sqrt(step.backward.n) for step in (weighted[0], weighted[-1]))
    return {
        "scale": max(map(abs, decades)),
        "spread": max(decades) - min(decades),
        "chi": math.log10(first / last),
    }


def run(*arguments, **environment):
    """The lines that a process of its own prints."""
    # -P: a file beside this one has the rival's name
    command = [sys.executable, "-P", "-W", "ignore", __file__, *arguments]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,  # threads that wait count as busy
    )
    return done.stdout.splitlines()


def frameworks():
    rows = []
    for framework, backend in FRAMEWORKS.items():
        lines = run("in_framework", framework, **({"KERAS_BACKEND": backend} if backend else {}))
        rows += [json.loads(line) for line in lines if line.startswith("[")]
        print("\n".join(line for line in lines if not line.startswith("[")))
    print(
        "\n| framework | model | layers | worst before | after | runs | runs a layer | time a layer, runs |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def peers(turns):
    found = {}
    for turn in range(turns):
        for way in WAYS if turn % 2 else WAYS[::-1]:
            for line in run("in_way", way):
                each = json.loads(line)
                found.setdefault(each["model"], {}).setdefault(way, []).append(each)
    print("\n| model | way | worst scale | spread | gradients | CPU seconds | peak MiB more |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for model, ways in found.items():
        for way in WAYS:
            runs = ways[way]
            seconds, peak = (statistics.median(each[what] for each in runs) for what in ("seconds", "peak"))
            if error := runs[0]["error"]:
                print(f"| {model} | {way} | {error[:70]} | | | | |")
                continue
            scale, spread, chi = (runs[0][what] for what in ("scale", "spread", "chi"))
            numbers = f"{scale:.3f} | {spread:.3f} | {chi:+.2f} | {seconds:.2f} | {peak / MIB:.0f}"
            print(f"| {model} | {way} | {numbers} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["frameworks", "peers", "in_framework", "in_way"])
    parser.add_argument("which", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    match arguments.what:
        case "in_framework":
            in_framework(arguments.which)
        case "in_way":
            in_way(arguments.which)
        case what:
            if what != "peers":
                frameworks()
            if what != "frameworks":
                peers(arguments.turns)
