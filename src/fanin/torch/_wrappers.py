"""Modules that stand for another one: recognized by their type, no part of a canonical name."""

from collections.abc import Iterator

from torch import nn

DISTRIBUTED = "torch.distributed."
# a wrapper, and the attribute that holds what it wraps
WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.optim.swa_utils.AveragedModel": "module",
    f"{DISTRIBUTED}algorithms._checkpoint.checkpoint_wrapper.ActivationWrapper": "_checkpoint_wrapped_module",
    f"{DISTRIBUTED}fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": "_fsdp_wrapped_module",
}


def wrapped(module: nn.Module) -> str | None:
    """The attribute in which a wrapper holds its module; None if it is none."""
    kinds = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__)
    return next((WRAPPERS[kind] for kind in kinds if kind in WRAPPERS), None)


def unwrapped(module: nn.Module) -> nn.Module:
    """The module in its wrappers."""
    while (attribute := wrapped(module)) is not None:
        module = getattr(module, attribute)
    return module


def descendants(module: nn.Module, front: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules in a module, with their canonical names relative to it, each with its last dot."""
    for name, child in unwrapped(module)._modules.items():
        if child is not None:
            yield f"{front}{name}.", unwrapped(child)
            yield from descendants(child, f"{front}{name}.")
