"""Transfer without a framework: what is taken, adapted, drawn or refused, and that it can be made again."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import time

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import fanin
from fanin.errors import ArgumentError, CheckpointError, PlanError, SeedError
from fanin.fans import IO, LOOKUP, OI, Axes
from fanin.initializers.catalogue import from_dict
from fanin.materialize import materialize, verify
from fanin.model import Model, Piece, Tensor
from fanin.plan import Plan
from fanin.transfer import Pretrained, card, look, moved, resolve
from fanin.transfer.names import renamed, suggested
from fanin.transfer.pretrained import write
from fanin.transfer.resolving import layers

VECTOR = Axes((0,), ())
QKV = Axes.parse("(s o) i -> s : o | i", members={"s": ("q", "k", "v")})


def tensor(path, shape, role="kernel", axes=OI, dtype="float32", name=None, **more):
    return Tensor(path, shape, dtype, (Piece(name or path, role, "linear", axes, **more),))


MODEL = Model((
    tensor("wte", (6, 4), "embedding", LOOKUP),
    tensor("fc.weight", (8, 4)),
    tensor("fc.bias", (8,), "bias", VECTOR),
    tensor("qkv", (12, 4), axes=QKV, name="attn.{}"),
    tensor("steps", (), "buffer", Axes((), ()), "int64"),
))  # fmt: skip


def values_of(model, seed=0):
    rng = np.random.default_rng(seed)
    return {t.path: np.asarray(rng.standard_normal(t.shape) * 100).astype(t.dtype) for t in model.tensors}


@pytest.fixture
def stored(tmp_path):
    values = values_of(MODEL)
    save_file(values, tmp_path / "old.safetensors")
    return tmp_path / "old.safetensors", values


def saved(folder, **values):
    save_file({name: np.ascontiguousarray(value) for name, value in values.items()}, folder / "x.safetensors")
    return folder / "x.safetensors"


def alone(path, shape, role="kernel", axes=OI, dtype="float32"):
    return Model((tensor(path, shape, role, axes, dtype),))


def test_everything_is_taken_bit_for_bit(stored, same_bits):
    path, values = stored
    plan = resolve(MODEL, path)
    assert {row.source for row in plan.rows} == {"taken"}
    assert plan.unexpected == ()
    for name, value in values.items():
        same_bits(plan.fill(name), value)


@given(data=st.data())
def test_any_window_is_a_slice_of_the_whole(data, tmp_path_factory):
    shape = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 3)))
    target = data.draw(st.sampled_from(["same", "rows", "channels", "part"]))
    old = np.random.default_rng(0).standard_normal((shape[0], shape[1], shape[2])).astype(np.float32)
    path = saved(tmp_path_factory.mktemp("w"), w=old)
    new = {"rows": (shape[0] + 2, *shape[1:]), "channels": (shape[0], shape[1] + 1, shape[2])}.get(
        target, shape
    )
    steps = {"rows": [("rows", {"new": "mean"})], "channels": ["channels"]}.get(target, [])
    part = {"axes": {"out": (0,), "in_": (1,)}, "base": "w", "member": "w"} if target == "part" else None
    init = Pretrained(str(path), ["w"], steps=steps, part=part)
    whole = init(new, seed=0, name="w", axes=OI)
    window = tuple(slice(*sorted(data.draw(st.tuples(*[st.integers(0, size)] * 2)))) for size in new)
    np.testing.assert_array_equal(init(new, seed=0, name="w", axes=OI, window=window), whole[window])
    if target in ("same", "part"):
        np.testing.assert_array_equal(whole, old)


def test_a_plan_saved_and_loaded_is_equal_and_makes_the_same_values(stored, same_bits):
    path, _ = stored
    plan = resolve(
        Model((*MODEL.tensors, tensor("new", (3, 3)))), path, "he_normal", seed=3, adapt={"fc.*": "draw"}
    )
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert plan.diff(again) == []
    assert {row.name: row.source for row in again.rows}["new"] == "draw"
    for each in plan.tensors:
        same_bits(again.fill(each.path), plan.fill(each.path))


def test_a_plan_is_read_where_its_checkpoint_is_not_and_a_changed_one_is_refused(stored):
    path, values = stored
    text = resolve(MODEL, path).to_json()
    path.unlink()
    plan = Plan.from_json(text)
    save_file(values | {"fc.bias": values["fc.bias"] + 1}, path)
    plan.fill("fc.weight")
    with pytest.raises(CheckpointError, match=r"'fc.bias' is not the tensor that the plan was made of"):
        plan.fill("fc.bias")


def test_it_is_written_by_the_writer_and_verified_integers_too(stored, tmp_path):
    path, values = stored
    plan = resolve(MODEL, path)
    assert materialize(plan, tmp_path / "out").finished
    assert verify(plan, tmp_path / "out") == []
    from safetensors.numpy import load_file

    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == values.keys()
    assert written["steps"] == values["steps"]
    written["fc.weight"][1, 2] += 1
    save_file(written, tmp_path / "out" / "model.safetensors")
    assert [(m.path, m.index) for m in verify(plan, tmp_path / "out")] == [("fc.weight", (1, 2))]


def test_what_is_missing_is_an_error_with_likely_renames_that_are_not_applied(tmp_path, stored):
    _, values = stored
    path = tmp_path / "dp.safetensors"
    save_file({f"module.{name}": value for name, value in values.items()}, path)
    with pytest.raises(PlanError, match=r"did you mean rename=\{'module\.': ''\}"):
        resolve(MODEL, path)
    with pytest.raises(PlanError, match="has nothing of the model"):
        resolve(MODEL, path, "he_normal", seed=0)
    assert {row.source for row in resolve(MODEL, path, rename={"module": ""}).rows} == {"taken"}


def test_a_likely_rename_is_not_drawn_in_silence(tmp_path):
    path = saved(tmp_path, head=np.ones((2, 4), np.float32), fc_1=np.ones((8, 4), np.float32))
    model = Model((tensor("fc1", (8, 4)), tensor("head", (2, 4))))
    with pytest.warns(UserWarning, match="has no 'fc1'.* did you mean rename={'fc_1': 'fc1'}"):
        plan = resolve(model, path, "he_normal", seed=1)
    assert [row.source for row in plan.rows] == ["draw", "taken"]
    resolve(
        model, path, "he_normal", seed=1, adapt={"fc1": "draw"}
    )  # asked for: no warning, which were an error


def test_draws_need_a_seed_and_unexpected_keys_are_listed(tmp_path):
    path = saved(tmp_path, fc=np.ones((8, 4), np.float32), other=np.ones(3, np.float32))
    model = Model((tensor("fc", (8, 4)), tensor("head", (2, 4))))
    with pytest.raises(SeedError, match="`seed` is required"):
        resolve(model, path, "he_normal")
    plan = resolve(model, path, "he_normal", seed=1)
    assert plan.unexpected == ("other",)
    assert Plan.from_json(plan.to_json()).unexpected == ("other",)
    np.testing.assert_array_equal(plan.fill("head"), fanin.HeNormal()((2, 4), seed=1, name="head", axes=OI))
    with pytest.raises(PlanError, match="lacks 'head'"):
        resolve(model, path)
    with pytest.raises(PlanError, match="'fc' is to be drawn, and no recipe says how"):
        resolve(model, path, adapt={"fc": "draw", "head": "keep"})


def test_a_shape_that_differs_names_both_shapes_and_what_would_do(tmp_path):
    path = saved(tmp_path, w=np.ones((8, 3, 3, 3), np.float32))
    with pytest.raises(PlanError, match=r"\(8, 4, 3, 3\).*\(8, 3, 3, 3\).*'channels', 'draw'"):
        resolve(alone("w", (8, 4, 3, 3)), path)
    path = saved(tmp_path, w=np.ones((3, 4), np.float32))
    with pytest.raises(PlanError, match="'transpose', 'draw'"):  # equal sizes are no reason to reshape
        resolve(alone("w", (4, 3)), path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bfloat16"])
def test_nan_and_infinity_are_refused_unless_asked_for(tmp_path, value, dtype):
    old = np.ones((300, 1000), np.float32).astype(getattr(ml_dtypes, dtype, dtype))
    old[-1, -1] = value
    path = saved(tmp_path, w=old)
    model = alone("w", (300, 1000), dtype=dtype)
    with pytest.raises(PlanError, match="'w' holds NaN or infinity"):
        resolve(model, path)
    assert resolve(model, path, allow_nonfinite=True).fill("w").tobytes() == old.tobytes()


def test_values_beyond_a_dtype_are_refused_and_others_rounded_once(tmp_path):
    path = saved(tmp_path, w=np.array([[1.0, 70000.0]], np.float32))
    with pytest.raises(PlanError, match=r"70000\.0 does not fit `dtype` float16"):
        resolve(alone("w", (1, 2), dtype="float16"), path)
    plan = resolve(alone("w", (1, 2), dtype="bfloat16"), path)
    assert plan.rows[0].source == "adapted"
    # just above the middle of two bfloat16: by way of float32 it would be the middle, and round to even
    wide = np.array([1 + 2**-8 + 2**-40, 1 + 2**-8, -(1 + 2**-8 + 2**-40), 0.0, 3.0])
    out = np.empty(5, ml_dtypes.bfloat16)
    write(out, wide, "w")
    assert out.astype(float).tolist() == [1 + 2**-7, 1.0, -(1 + 2**-7), 0.0, 3.0]


def test_packed_and_separate_projections_are_one_network(tmp_path, same_bits):
    old = np.random.default_rng(1).standard_normal((12, 4)).astype(np.float32)
    packed = Model((tensor("qkv", (12, 4), axes=QKV, name="attn.{}"),))
    apart = Model(tuple(tensor(f"x.{name}", (4, 4), name=f"attn.{name}") for name in "qkv"))
    path = saved(tmp_path, qkv=old)
    plan = resolve(apart, path, source=packed)
    for at, name in enumerate("qkv"):
        same_bits(plan.fill(f"x.{name}"), old[4 * at : 4 * at + 4])
    path = saved(tmp_path, **{f"x.{name}": old[4 * at : 4 * at + 4] for at, name in enumerate("qkv")})
    same_bits(resolve(packed, path, source=apart).fill("qkv"), old)
    # without a source plan, separate ones are found by their canonical names
    path = saved(tmp_path, **{f"attn.{name}": old[4 * at : 4 * at + 4] for at, name in enumerate("qkv")})
    same_bits(resolve(packed, path).fill("qkv"), old)


def test_kernels_of_other_frameworks_by_layout_and_by_source(tmp_path, same_bits):
    old = np.random.default_rng(1).standard_normal((3, 3, 5, 7)).astype(np.float32)
    path = saved(tmp_path, conv=old)
    model = alone("conv", (7, 5, 3, 3))
    same_bits(resolve(model, path, layout="io").fill("conv"), np.ascontiguousarray(old.transpose(3, 2, 0, 1)))
    theirs = alone("conv", (3, 3, 5, 7), axes=IO)
    same_bits(
        resolve(model, path, source=theirs).fill("conv"), np.ascontiguousarray(old.transpose(3, 2, 0, 1))
    )
    heads = np.random.default_rng(2).standard_normal((6, 2, 4)).astype(np.float32)
    path = saved(tmp_path, q=heads)
    theirs = alone("q", (6, 2, 4), axes=Axes.parse("d n h -> n h | d"))
    same_bits(
        resolve(alone("q", (8, 6)), path, source=theirs).fill("q"),
        np.ascontiguousarray(heads.reshape(6, 8).T),
    )


def test_channels_repeat_and_keep_the_sum(tmp_path):
    old = np.random.default_rng(1).standard_normal((4, 3, 2, 2)).astype(np.float32)
    path = saved(tmp_path, w=old)
    made = {n: resolve(alone("w", (4, n, 2, 2)), path, adapt={"w": "channels"}).fill("w") for n in (1, 5, 6)}
    np.testing.assert_allclose(made[1][:, 0], old.sum(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made[6].sum(1), old.sum(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made[5], old[:, [0, 1, 2, 0, 1]] * 0.6, rtol=1e-6)


def test_rows_and_classes(tmp_path):
    old = np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32)
    path = saved(tmp_path, w=old)
    model = alone("w", (52, 3), "embedding", LOOKUP)

    def made(adapter, **more):
        return resolve(model, path, **({"recipe": "he_normal", "seed": 4} | more), adapt={"w": adapter}).fill(
            "w"
        )

    drawn = fanin.RandomNormal(0.0, 0.02)((52, 3), seed=4, name="w", axes=LOOKUP)
    for how, expected, within in (
        (("rows", {"new": "mean"}), [old.mean(0)] * 2, 1e-6),
        (("rows", {"new": "copy", "of": [7, 3]}), old[[7, 3]], 0),
        (("rows", {"new": "draw"}), drawn[50:], 0),
        (("rows", {"new": "mean_cov"}), [old.mean(0)] * 2, 7 * np.sqrt(1e-9) * old.std()),
    ):
        values = made(how)
        np.testing.assert_array_equal(values[:50], old)
        np.testing.assert_allclose(values[50:], expected, atol=within, rtol=0)
    spread = made(("rows", {"new": "mean_cov"}))[50:]
    assert (spread[0] != spread[1]).all()
    take = [*range(10, 60)]
    with pytest.raises(PlanError, match="`take` must name one of 50 outputs"):
        made(("classes", {"take": take}))
    chosen = made(("classes", {"take": [-1, *range(49, -1, -1), -1]}))
    np.testing.assert_array_equal(chosen[1:51], old[::-1])
    np.testing.assert_array_equal(chosen[[0, 51]], drawn[[0, 51]])
    np.testing.assert_array_equal(
        resolve(alone("w", (20, 3), "embedding", LOOKUP), path, adapt={"w": "rows"}).fill("w"), old[:20]
    )


def test_what_is_drawn_or_kept_may_have_any_shape_in_the_checkpoint(tmp_path):
    path = saved(tmp_path, fc=np.ones((8, 4), np.float32), head=np.ones((9, 9, 9), np.float32))
    model = Model((tensor("fc", (8, 4)), tensor("head", (2, 4))))
    plan = resolve(model, path, "he_normal", seed=1, adapt={"head": "draw"})
    assert ([row.source for row in plan.rows], plan.unexpected) == (["taken", "draw"], ())
    assert resolve(model, path, adapt={"head": "keep"})["head"].source == "keep"


def test_width_is_selected_evenly(tmp_path):
    old = np.arange(8 * 7, dtype=np.float32).reshape(8, 7)
    path = saved(tmp_path, w=old)
    made = resolve(alone("w", (4, 3)), path, adapt={"w": "select"}).fill("w")
    np.testing.assert_array_equal(made, old[np.ix_([0, 2, 4, 6], [0, 3, 6])])
    with pytest.raises(PlanError, match="is not smaller"):
        resolve(alone("w", (9, 7)), path, adapt={"w": "select"})


def test_depth_is_stacked(tmp_path):
    old = {f"h.{at}.w": np.full((2, 2), at, np.float32) for at in range(2)}
    path = saved(tmp_path, **old)
    model = Model(tuple(tensor(f"h.{at}.w", (2, 2), block=at) for at in range(4)))
    for how, expected in (
        ("spread", [0, 0, 1, 1]),
        ("repeat", [0, 1, 0, 1]),
        ("interpolate", [0, 1 / 3, 2 / 3, 1]),
    ):
        plan = resolve(model, path, adapt={"h.*": ("stack", {"how": how})})
        assert plan.unexpected == ()
        found = [float(plan.fill(f"h.{at}.w")[0, 0]) for at in range(4)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert [layers(at, 4, 2, "spread")[0][0] for at in range(2)] == [0, 2]


@pytest.mark.parametrize("stored_as", ["fused", "scanned"])
def test_depth_is_stacked_by_a_source(tmp_path, stored_as):
    old = np.random.default_rng(0).standard_normal((2, 12, 4)).astype(np.float32)
    if stored_as == "fused":
        path = saved(tmp_path, **{f"old.{at}.qkv": old[at] for at in range(2)})
        source = Model(
            tuple(
                tensor(f"old.{at}.qkv", (12, 4), axes=QKV, name=f"h.{at}.attn.{{}}", block=at)
                for at in range(2)
            )
        )
    else:
        path = saved(tmp_path, scan=old)
        axes = Axes.parse("l (s o) i -> l s : o | i", members={"s": ("q", "k", "v")})
        source = Model((tensor("scan", (2, 12, 4), axes=axes, name="h.{}.attn.{}"),))
    model = Model(tuple(tensor(f"h.{at}.attn.k", (4, 4), block=at) for at in range(4)))
    keys = old[:, 4:8]
    for how, expected in (
        ("spread", keys[[0, 0, 1, 1]]),
        ("repeat", keys[[0, 1, 0, 1]]),
        ("interpolate", [keys[0] + (keys[1] - keys[0]) * at / 3 for at in range(4)]),
    ):
        plan = resolve(model, path, adapt={"h.*": ("stack", {"how": how})}, source=source)
        made = [Plan.from_json(plan.to_json()).fill(f"h.{at}.attn.k") for at in range(4)]
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)


def test_digests_are_made_when_a_plan_is_saved_and_until_then_the_file_must_stay(stored):
    path, values = stored
    plan = resolve(MODEL, path)
    assert plan["fc.bias"].initializer.digests is None
    rows = json.loads(plan.to_json())["rows"]
    said = {row["name"]: row["initializer"]["digests"] for row in rows}
    assert said["fc.bias"] == [hashlib.sha256(values["fc.bias"].tobytes()).hexdigest()]
    assert plan["fc.bias"].initializer.digests == tuple(said["fc.bias"])
    later = resolve(MODEL, path)
    assert (later.identity(), later["fc.bias"].initializer.digests) == (plan.identity(), None)
    assert plan.diff(later) == []
    later, unsigned = resolve(MODEL, path), resolve(MODEL, path, digests=False)
    save_file(values | {"fc.bias": values["fc.bias"] + 1, "more": np.ones(3)}, path)
    for use in (later.to_json, later.sign, lambda: later.fill("fc.bias"), lambda: look(later)):
        with pytest.raises(CheckpointError, match="has changed since the plan was made"):
            use()
    with pytest.raises(CheckpointError, match=r"'fc.bias' is not the tensor that the plan was made of"):
        look(plan)
    np.testing.assert_array_equal(unsigned.fill("fc.bias"), values["fc.bias"] + 1)
    assert "digests" not in json.loads(unsigned.to_json())["rows"][0]["initializer"]


def test_what_is_written_beside_a_checkpoint_is_no_change_of_it(stored):
    path, values = stored
    plan = resolve(MODEL, path.parent)
    (path.parent / "plan.json").write_text("{}")
    plan.save(path.parent / "plan.json")
    later = resolve(MODEL, path.parent)
    save_file(values, path)
    with pytest.raises(CheckpointError, match="has changed since the plan was made"):
        later.save(path.parent / "plan.json")


def test_what_is_damaged_is_seen_before_anything_is_written(tmp_path):
    values = values_of(MODEL)
    save_file(values, tmp_path / "a.safetensors")
    np.savez(tmp_path / "b.npz", **values)
    plans = {
        path: Plan.from_json(resolve(MODEL, path).to_json())
        for path in (tmp_path / "a.safetensors", tmp_path / "b.npz")
    }
    for path, plan in plans.items():
        look(plan)
        data = bytearray(path.read_bytes())
        if path.suffix == ".npz":
            data[data.index(values["fc.bias"].tobytes())] ^= 1
        else:
            del data[-3:]
        path.write_bytes(data)
        with pytest.raises(CheckpointError):
            look(plan)


def test_only_the_windows_that_will_be_written_are_looked_at(tmp_path):
    old = np.ones((8, 4), np.float32)
    old[6, 1] = np.nan
    plan = resolve(alone("w", (8, 4)), saved(tmp_path, w=old), values=False)
    look(plan, lambda path: [(slice(0, 6), slice(0, 4))])
    with pytest.raises(PlanError, match="'w' holds NaN or infinity"):
        look(plan, lambda path: [(slice(6, 8), slice(0, 4))])
    with pytest.raises(PlanError, match="'w' holds NaN or infinity"):
        plan.fill("w")


KILLED = """
import sys, fanin
from fanin.materialize import files, materialize, writer
files.CHUNK, writer.FLUSH = 4096, 8192
plan = fanin.Plan.from_file(sys.argv[1])
print("started", flush=True)
materialize(plan, sys.argv[2], max_shard_size=4_000_000, workers=2, resume=True)
"""


@pytest.mark.parametrize("name", ["new.safetensors", "new"])
def test_a_killed_transfer_leaves_what_was_there_and_goes_on(tmp_path, name):
    sizes = {f"layer.{at}": (1000, 300) for at in range(10)}
    rng = np.random.default_rng(0)
    path = saved(tmp_path, **{name: rng.standard_normal(shape) for name, shape in list(sizes.items())[:5]})
    plan = resolve(Model(tuple(tensor(*each) for each in sizes.items())), path, "he_normal", seed=1)
    plan.save(tmp_path / "plan.json")
    (tmp_path / "whole").mkdir()
    materialize(plan, tmp_path / "whole" / name, max_shard_size=4_000_000)
    out = tmp_path / name
    if out.suffix:
        out.write_bytes(b"what was there before")

    def named(place):
        """What has a final name."""
        paths = [place] if place.is_file() else place.glob("[!.]*")
        return {path.name: path.read_bytes() for path in paths}

    before, whole, draws, kills = named(out), named(tmp_path / "whole" / name), random.Random(4), 0
    for _ in range(60):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "plan.json"), str(out)]
        run = subprocess.Popen(command, stdout=subprocess.PIPE)
        run.stdout.readline()
        time.sleep(draws.random() * 0.4)
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
        code = run.wait()
        run.stdout.close()
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        for each, data in named(out).items():  # a file that is named in this moment is whole
            assert data in (before.get(each), whole[each])
    else:
        pytest.fail("never finished")
    assert kills >= 1
    assert verify(plan, out) == []
    assert named(out) == whole
    assert not list(tmp_path.glob("**/.*"))


def test_one_file_is_written_where_no_folder_is(stored, tmp_path):
    plan = resolve(MODEL, stored[0])
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="is a folder; choose another name"):
        materialize(plan, tmp_path / "taken.safetensors")
    with pytest.raises(ArgumentError, match=r"one.safetensors is one file; parts need a folder"):
        materialize(plan, tmp_path / "one.safetensors", part=(1, 2))
    leftover = tmp_path / ".one.safetensors.fanin-partial"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"of another plan, whole but for its name")
    made = materialize(plan, tmp_path / "one.safetensors", resume=True)
    assert (made.files, made.finished) == (("one.safetensors",), True)
    assert verify(plan, tmp_path / "one.safetensors") == []
    assert not leftover.exists()


def test_bad_arguments_say_what_would_be_right(stored):
    path, _ = stored
    for arguments, text in (
        ({"adapt": {"fc.*": "chanels"}}, "did you mean channels"),
        ({"adapt": {"fc.*": ("rows", {"nwe": 1})}}, "did you mean new"),
        ({"adapt": {"fc.*": ("stack", {"how": "up"})}}, "one of spread, repeat, interpolate"),
        ({"adapt": {"fd.*": "draw"}}, "fits no parameter; known names"),
        ({"adapt": {"fc.*": 3}}, "expected an adapter"),
        ({"rename": {"absent": "x"}}, "fits no tensor of the checkpoint"),
        ({"rename": {"fc.*": "fc"}}, "makes 'fc' of"),
        ({"rename": {"fc.*": "*.*"}}, "has more of"),
        ({"layout": "keras"}, "expected one of io, oi"),
    ):
        with pytest.raises(ArgumentError, match=text):
            resolve(MODEL, path, "he_normal", seed=0, **arguments)
    with pytest.raises(ArgumentError, match="has more of"):
        renamed(["fc.weight"], {"fc.*": "*.*"})


def test_pretrained_checks_its_arguments_and_stores_itself():
    init = Pretrained("a", ["k"], ["d"], steps=[("rows", {"new": "copy", "of": [1]})], rest="he_normal")
    again = from_dict(json.loads(json.dumps(init.to_dict())))
    assert again == init
    assert hash(again) == hash(init)
    assert init.coupled
    assert not Pretrained("a", ["k"]).coupled
    for arguments, text in (
        ({"keys": []}, "`keys` must name"),
        ({"keys": "k"}, "`keys` must name"),
        ({"weights": [1, 2]}, "need one for each"),
        ({"part": {"axes": 3}}, "`part`"),
        ({"steps": ["nope"]}, "no adapter"),
    ):
        with pytest.raises(ArgumentError, match=text):
            Pretrained(**({"file": "a", "keys": ["k"]} | arguments))


def test_suggestions_pair_names_that_are_alike_and_have_one_shape():
    missing = {"blocks.0.fc1.weight": (4, 4), "blocks.0.ln.bias": (4,)}
    spare = {"layers.0.fc_1.weight": (4, 4), "layers.0.ln.bias": (4,), "layers.0.lm.bias": (5,)}
    assert suggested(missing, spare) == {
        "layers.0.fc_1.weight": "blocks.0.fc1.weight",
        "layers.0.ln.bias": "blocks.0.ln.bias",
    }
    assert suggested({"transformer.h.0.w": (2,)}, {"h.0.w": (2,)}) == {"": "transformer."}


def test_a_tie_with_two_values_is_refused(tmp_path):
    one = np.ones((3, 2), np.float32)
    model = Model(
        (Tensor("wte", (3, 2), "float32", (Piece("wte", "embedding", "embedding", LOOKUP),), ("head",)),)
    )
    path = saved(tmp_path, wte=one, head=one + 1)
    with pytest.raises(PlanError, match="with different values"):
        resolve(model, path)
    assert resolve(model, saved(tmp_path, wte=one, head=one)).unexpected == ()
    np.testing.assert_array_equal(resolve(model, saved(tmp_path, head=one)).fill("wte"), one)


def test_the_card_counts_and_escapes(tmp_path):
    path = saved(tmp_path, **{"fc": np.ones((8, 4), np.float32), "a|b`<script>": np.ones(1, np.float32)})
    plan = resolve(Model((tensor("fc", (8, 4)), tensor("head", (2, 4)))), path, "he_normal", seed=1)
    text = card(plan)
    assert "| taken from a checkpoint | 1 | 32 | 80.0% |" in text
    assert "| drawn | 1 | 8 | 20.0% |" in text
    assert plan.rows[0].initializer.digests[0] in text
    assert "<script>" not in text
    assert "a\\|b'&lt;script>" in text


def test_distance_is_from_values_made_again(stored):
    path, values = stored
    plan = resolve(MODEL, path)
    now = values | {"fc.weight": values["fc.weight"] * np.float32(3)}
    found = {row.path: row for row in moved(plan, now, now.__getitem__).rows}
    assert found["fc.weight"].relative == pytest.approx(2, rel=1e-6)
    assert found["qkv"].rms == 0
