"""Which activation follows a kernel is read from the run where the model does not say it."""

import numpy as np

from fanin.audit import Operation, measure
from fanin.audit.follow import followed
from fanin.fans import IO
from fanin.model import Model, Piece, Tensor

X = np.eye(4, dtype=np.float32)


def step(name: str, kind: str, *inputs: int, activation: str | None = None) -> Operation:
    parameters = (f"{name}.weight",) if kind == "dense" else ()
    return Operation(
        name, kind, kind, inputs, measure.signal(X), parameters=parameters, activation=activation
    )


def piece(name: str) -> Piece:
    activation = "gelu" if name == "known" else None
    return Piece(f"{name}.weight", "kernel", "linear", IO, activation=activation)


def test_an_activation_is_known_through_a_norm_but_not_through_a_fork() -> None:
    operations = [
        step("a", "dense", -1),
        step("norm", "norm", 0),
        step("relu", "activation", 1, activation="relu"),
        step("b", "dense", 2),
        step("tanh", "activation", 3, activation="tanh"),
        step("gate", "multiply", 3, 4),
        step("known", "dense", 5),
        step("silu", "activation", 6, activation="silu"),
        step("head", "dense", 7),
    ]
    names = ["a", "b", "known", "head"]
    tensors = tuple(Tensor(name, X.shape, "float32", (piece(name),)) for name in names)
    found = followed(operations, measure.weights(Model(tensors), lambda path: X))
    assert [each.activation for each in found] == ["relu", None, "gelu", None]
