"""Flax's part."""

import carry
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from in_flax import NETWORKS

import fanin.jax as fj

NOT_HERE = ("num_batches_tracked", "gru.bias_hh_l0")  # PyTorch's counter; zeros of a bias that is left out


class Norm(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), padding="VALID", rngs=rngs)
        self.bn = nnx.BatchNorm(4, epsilon=1e-5, rngs=rngs)

    def __call__(self, x):
        return self.bn(self.conv(x))


class GRU(nnx.Module):
    def __init__(self, rngs):
        self.gru = nnx.RNN(nnx.GRUCell(8, 6, rngs=rngs))

    def __call__(self, x):
        return self.gru(x)


class All(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        for name, kind in (NETWORKS | {"norm": Norm, "gru": GRU}).items():
            setattr(self, name, kind(rngs))


def outputs(model):
    model.eval()
    found = carry.batches().items()
    return {name: np.asarray(getattr(model, name)(jnp.asarray(batch))) for name, batch in found}


def write(folder):
    model = All()
    kept = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    for at, (path, leaf) in enumerate(nnx.to_flat_state(kept)):
        leaf.set_value(jnp.asarray(carry.values(leaf.shape, ".".join(map(str, path)), at)))
    nnx.update(model, kept)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "flax_orbax", kept)
    fj.plan(model, "keep").save(folder / "flax.json")
    return outputs(model)


def read(file, source):
    model = nnx.eval_shape(All)
    plan = fj.transfer(model, file, source=source, dry_run=True)
    assert [key for key in plan.unexpected if not key.endswith(NOT_HERE)] == []
    fj.initialize(model, plan)
    assert fj.verify(model, plan) == []
    return outputs(model)


carry.main("flax", write, read)
