"""A trace is numbers that do not change, JSON in and out, and knows which operations all paths pass."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanin.audit import Operation, Signal, Spread, Trace, Weights
from fanin.audit.trace import KINDS
from fanin.errors import TraceError

AFTER = Signal(4, 0.0, 1.0, 1.0, 2.0, 0.0, 0, {-1: 3, 0: 1}, (2, 2), 2, 0.5, 0.0, 0.1, 0.25, 1.5, 2)


def graph(*inputs, outputs=None, kinds=()):
    """Operations named by their place, that take others."""
    made = [
        Operation(str(at), kind, "", taken, AFTER)
        for at, (taken, kind) in enumerate(zip(inputs, [*kinds, *["other"] * len(inputs)], strict=False))
    ]
    return Trace("torch", (), tuple(made), outputs=(len(made) - 1,) if outputs is None else outputs)


def test_a_chain_is_one_trunk():
    assert graph((-1,), (0,), (1,)).trunks == ((0, 1, 2),)


def test_a_branch_beside_a_skip_is_on_no_trunk():
    # 0 -> (1 -> 2) + 0 -> 3 -> (4) + 3 -> 5
    assert graph((-1,), (0,), (1,), (0, 2), (3,), (3, 4), (5,)).trunks == ((0, 3, 5, 6),)


def test_each_table_has_its_own_trunk_and_one_inside_another_is_left_out():
    words_and_places = graph((), (), (0, 1), (2,))
    assert words_and_places.trunks == ((0, 2, 3), (1, 2, 3))
    assert graph((-1,), (0,), (), (1, 2), (3,)).trunks == ((0, 1, 3, 4), (2, 3, 4))


def test_what_reaches_no_output_is_left_out():
    assert graph((-1,), (0,), (0,), outputs=(1,)).trunks == ((0, 1),)
    assert graph((-1,), (0,), outputs=()).trunks == ()


def test_two_outputs_share_what_comes_before_both():
    assert graph((-1,), (0,), (1,), (1,), outputs=(2, 3)).trunks == ((0, 1),)


@given(st.data())
def test_a_trunk_is_what_no_path_goes_around(data):
    n = data.draw(st.integers(1, 7))
    inputs = [
        tuple(sorted(data.draw(st.sets(st.integers(-1, at - 1), min_size=1, max_size=3)))) for at in range(n)
    ]
    trace = graph(*inputs)

    def paths(at):
        return [[*path, at] for taken in inputs[at] for path in (paths(taken) if taken >= 0 else [[]])]

    through = set.intersection(*map(set, paths(n - 1)))
    assert trace.trunks == (tuple(sorted(through)),)


# data


def full():
    values = Spread(4, 0.0, 1.0, 1.0, 2.0, 0.0, 0, {-1: 4})
    law = {"positive": 0.5, "kurtosis": 3.0, "bits": 24, "units": 2, "distinct": 2, "digest": "00"}
    weights = Weights("fc.weight", "fc.weight", "kernel", "linear", (2, 2), "float32", values, **law)
    lost = dataclasses.replace(AFTER, std=math.nan, largest=math.inf)
    operation = Operation(
        "fc", "dense", "Linear", (-1,), AFTER, lost, ("fc.weight",), gates={"input_gate": AFTER}
    )
    return Trace("torch", (weights,), (operation,), (AFTER,), (0,), 2.3, math.inf, (2.0, 1.0), "adam 0.001")


def test_json_keeps_everything():
    text = full().to_json()
    again = Trace.from_json(text)
    assert again.to_json() == text
    assert again.operations[0].after == AFTER
    assert math.isnan(again.operations[0].before.std)
    assert again.blind_loss == math.inf
    assert json.loads(text)["schema"] == "fanin.trace/1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data.update(schema="fanin.trace/9"), "its schema is 'fanin.trace/9'"),
        (lambda data: data["operations"][0].update(kind="densee"), "no kind 'densee'"),
        (lambda data: data["operations"][0].update(inputs=[0]), "are not before it"),
        (lambda data: data.update(outputs=[7]), r"outputs \(7,\) are none of 1 operations"),
        (lambda data: data["weights"][0].update(role="kernell"), "no role 'kernell'"),
        (lambda data: data["weights"][0].update(bits="many"), "bits"),
        (lambda data: data.pop("weights"), "weights"),
    ],
)
def test_a_trace_that_is_none_is_one_error_that_names_the_file(change, says):
    data = json.loads(full().to_json())
    change(data)
    with pytest.raises(TraceError, match=rf"(?s)a\.json: .*{says}"):
        Trace.from_json(json.dumps(data), "a.json")


@pytest.mark.parametrize("text", ["", "[", "[]", "3", '{"framework": 3}'])
def test_text_that_is_no_trace_is_an_error(text):
    with pytest.raises(TraceError, match="trace: "):
        Trace.from_json(text)


def test_a_trace_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        full().loss = 1.0


def test_parameters_are_found_by_name():
    assert full()["fc.weight"].role == "kernel"
    with pytest.raises(TraceError, match=r"no parameter 'fc\.bias'"):
        full()["fc.bias"]


def test_the_module_of_an_operation_is_the_front_of_its_name():
    names = {"fc": "fc", "blocks.0:add": "blocks.0", "blocks.0:add#2": "blocks.0", "act#3": "act"}
    for name, module in names.items():
        assert Operation(name, "other", "", (-1,), AFTER).module == module


def test_kinds_are_said_in_words():
    assert all(words and words[0].islower() for words in KINDS.values())


def test_a_spread_has_no_signal():
    assert Spread(1, 0.0, 0.0, 0.0, 0.0, 1.0, 0) == Spread(1, 0.0, 0.0, 0.0, 0.0, 1.0, 0, {})
