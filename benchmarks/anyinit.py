"""`fanin.torch.initialize` beside AnyInit on real architectures: what is set, in what time and memory.

One process per tool for the small models, one per tool and model for the large ones. Parameters are poisoned
beforehand, so that what a tool leaves as it was shows.

    python benchmarks/anyinit.py [small | large]
"""

import json
import subprocess
import sys
import time
from pathlib import Path

MODELS = Path(__file__).parents[1] / "tests" / "adapters" / "torch"
TOOLS = ("fanin", "anyinit")
POISON = 0.12345
MIB = 1 << 20
LARGE = {  # the defaults of transformers' configs, but for one that fits
    "GPT-2": ("GPT2LMHeadModel", "GPT2Config", {}),
    "BERT": ("BertForMaskedLM", "BertConfig", {}),
    "ViT": ("ViTForImageClassification", "ViTConfig", {}),
    "ResNet-50": ("ResNetForImageClassification", "ResNetConfig", {}),
    "Llama": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16, "num_attention_heads": 16},
    ),
}


def build(name):
    if name in LARGE:
        import transformers

        model, config, options = LARGE[name]
        return getattr(transformers, model)(getattr(transformers, config)(**options))
    sys.path.insert(0, str(MODELS))
    import models

    return next(each for each in models.MODELS if each.name == name).build()


def initialize(tool, model):
    if tool == "fanin":
        import fanin.torch as ft

        ft.initialize(model, "he_normal", seed=0)
    else:
        import anyinit

        anyinit.initialize(model, seed=0)


def memory(what):
    """Bytes that the process has (VmRSS) or has had since `forget` (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def forget():
    Path("/proc/self/clear_refs").write_text("5")


def work(tool, name):
    import torch

    model = build(name)
    initialize(tool, torch.nn.Linear(4, 4))  # what is loaded on first use is not counted
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(POISON)
    forget()
    before, began = memory("VmRSS"), time.perf_counter()
    try:
        initialize(tool, model)
        error = None
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}".splitlines()[0][:80]
    seconds = time.perf_counter() - began
    peak = memory("VmHWM") - before
    parameters = list(model.parameters())
    poison = torch.tensor(POISON)
    return {
        "error": error,
        "seconds": seconds,
        "peak": peak,
        "elements": sum(p.numel() for p in parameters),
        "left": sum(int((p.detach() == poison).sum()) for p in parameters),
        "tensors": sum(bool((p.detach() == poison).any()) for p in parameters),
    }


def measured(tool, names):
    # -P: this file has the rival's name
    command = [sys.executable, "-P", "-W", "ignore", __file__, "work", tool, *names]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def said(result):
    if result["error"]:
        return result["error"].replace("|", "/")
    return f"{result['tensors']} tensors left" if result["left"] else "all"


def small():
    sys.path.insert(0, str(MODELS))
    import models

    names = [each.name for each in models.MODELS]
    ours, theirs = (measured(tool, names) for tool in TOOLS)
    print("| model | fanin sets | AnyInit sets | AnyInit leaves, of elements |")
    print("| --- | --- | --- | ---: |")
    for name, mine, other in zip(names, ours, theirs, strict=True):
        left = "" if other["error"] else f"{other['left'] / other['elements']:.0%}"
        print(f"| {name} | {said(mine)} | {said(other)} | {left} |")
    for tool, results in zip(TOOLS, (ours, theirs), strict=True):
        complete = [result for result in results if said(result) == "all"]
        failed = [result for result in results if result["error"]]
        print(f"\n{tool}: {len(complete)} of {len(names)} complete, {len(failed)} errors.")


def large():
    print("\n| model | parameters | fanin, s | AnyInit, s | fanin, peak MiB more | AnyInit, peak MiB more |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in LARGE:
        results = [measured(tool, [name])[0] for tool in TOOLS]
        times = " | ".join(each["error"] or f"{each['seconds']:.2f}" for each in results)
        peaks = " | ".join("" if each["error"] else f"{each['peak'] / MIB:.0f}" for each in results)
        print(f"| {name} | {results[0]['elements'] / 1e6:.0f} M | {times} | {peaks} |", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["work", tool, *names]:
            for name in names:
                print(json.dumps(work(tool, name)), flush=True)
        case ["small"]:
            small()
        case ["large"]:
            large()
        case []:
            small()
            large()
