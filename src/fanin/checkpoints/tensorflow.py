"""TensorFlow's checkpoints, by name and by object. Runs in the child process.

A checkpoint of objects names a variable by one way to it, which may lead through the optimizer: of the ways
that do not, the shortest is taken.
"""

from collections import deque
from importlib import import_module
from pathlib import Path
from typing import Any

from fanin._types import Array, Window
from fanin.checkpoints.contents import Asked, Contents, Spec, no_key, readable
from fanin.errors import CheckpointError

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
COUNTERS = ("save_counter", "global_step", "beta1_power", "beta2_power")
ITERATIONS = {"_iterations", "iterations", "iter"}  # what every optimizer counts


def contents(path: Path, asked: Asked) -> Contents:
    """The variables of a checkpoint; ``path`` is its prefix."""
    no_key(path, asked.key)
    reader: Any = import_module("tensorflow").train.load_checkpoint(str(path))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    named, full = _of_objects(reader) if GRAPH in shapes else (_by_name(shapes), {})
    size = sum(data.stat().st_size for data in path.parent.glob(f"{path.name}.data-*"))
    tensors, left_out, of = {}, {}, {}
    for stored in sorted(shapes):
        name, dtype = stored.removesuffix(VALUE), dtypes[stored].name
        if stored not in named:
            left_out[name] = _reason(name, dtype)
        elif not readable(dtype):
            left_out[named[stored]] = f"dtype {dtype}"
        else:
            tensors[named[stored]], of[named[stored]] = Spec(tuple(shapes[stored]), dtype), stored
    if sum(spec.nbytes for spec in tensors.values()) > size:
        raise CheckpointError(f"{path}: its data files have {size} bytes, less than its tensors; truncated?")

    def read(name: str, window: Window) -> Array:
        values: Array = reader.get_tensor(of[name])[window]
        return values

    names = {named[stored]: said for stored, said in full.items() if named[stored] in tensors}
    return Contents(tensors, left_out, {"full_names": names} if names else {}, read=read)


def _reason(name: str, dtype: str) -> str:
    if not readable(dtype):
        return f"dtype {dtype}"
    return "a counter" if name in COUNTERS else "of the optimizer"


def _by_name(shapes: dict[str, Any]) -> dict[str, str]:
    """Of a checkpoint by name: what stands below another variable, of the same shape, is a slot of it."""
    return {
        name: name
        for name in shapes
        if name not in COUNTERS and shapes.get(name.rpartition("/")[0]) != shapes[name]
    }


def _of_objects(reader: Any) -> tuple[dict[str, str], dict[str, str]]:
    """{stored name: name}, and the names that the variables themselves have, of what no optimizer holds."""
    protocol: Any = import_module("tensorflow.core.protobuf.trackable_object_graph_pb2")
    graph = protocol.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(GRAPH))
    slots = {slot.slot_variable_node_id for node in graph.nodes for slot in node.slot_variables}
    ways, waiting = {0: ""}, deque([0])
    while waiting:
        at = waiting.popleft()
        for child in graph.nodes[at].children:
            node = graph.nodes[child.node_id]
            optimizer = node.slot_variables or ITERATIONS & {each.local_name for each in node.children}
            if child.node_id not in ways and child.node_id not in slots and not optimizer:
                ways[child.node_id] = f"{ways[at]}/{child.local_name}".lstrip("/")
                waiting.append(child.node_id)
    named, full = {}, {}
    for at, way in ways.items():
        for attribute in graph.nodes[at].attributes:
            stored = attribute.checkpoint_key
            if attribute.name == "VARIABLE_VALUE" and way not in COUNTERS:
                named[stored] = way if _held(stored, graph, ways) else stored.removesuffix(VALUE)
                full[stored] = attribute.full_name
    return named, full


def _held(stored: str, graph: Any, ways: dict[int, str]) -> bool:
    """Whether the way that a variable was stored by leads where only an optimizer does."""
    at = 0
    for part in stored.removesuffix(VALUE).split("/"):
        found = next((each.node_id for each in graph.nodes[at].children if each.local_name == part), None)
        if found is None:
            return False
        if found not in ways:
            return True
        at = found
    return False
