"""Plans: matching resolved, values before they are set, files, differences, errors."""

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fanin
from fanin import recipes
from fanin.errors import PlanError, RecipeError, SeedError
from fanin.fans import IO, LOOKUP, OI, Axes, Fans
from fanin.model import Model, Piece, Tensor
from fanin.plan import Plan, resolve
from fanin.recipe import Recipe, Rule, role

QKV = {"s": ("q_proj", "k_proj", "v_proj")}
PACKED = Tensor(
    "h.0.attn.c_attn.weight",
    (4, 12),
    "float32",
    (
        Piece(
            "h.0.attn.{}.weight",
            "kernel",
            "attention",
            Axes.parse("i (s o) -> s : o | i", members=QKV),
            block=0,
        ),
    ),
)
# grouped queries: 8 rows of queries, 2 of keys, 2 of values
UNEQUAL = Tensor(
    "h.0.qkv.weight",
    (12, 6),
    "bfloat16",
    (
        Piece("h.0.q.weight", "kernel", "linear", OI, ((0, 8), (0, 6))),
        Piece("h.0.k.weight", "kernel", "linear", OI, ((8, 10), (0, 6))),
        Piece("h.0.v.weight", "kernel", "linear", OI, ((10, 12), (0, 6))),
    ),
)
BIAS = Tensor(
    "fc.bias", (5,), "float32", (Piece("fc.bias", "bias", "linear", Axes((0,), (), known=Fans(6, 5))),)
)
TABLE = Tensor(
    "wte", (7, 4), "float32", (Piece("wte", "embedding", "embedding", LOOKUP, padding_row=2),), ("head",)
)
SCALE = Tensor("ln.weight", (4,), "float32", (Piece("ln.weight", "norm_scale", "layer_norm", OI),))
OWN = Tensor(
    "pos",
    (2, 2),
    "float32",
    (Piece("pos", "position", "sinusoid", OI, own=fanin.Constant([[0.0, 1.0], [2.0, 3.0]])),),
)
SCALAR = Tensor("temperature", (), "float32", (Piece("temperature", "unknown", "clip", Axes((), ())),))
MODEL = Model((PACKED, UNEQUAL, BIAS, TABLE, SCALE, OWN), {"n_layer": 1})


def plan_of(recipe, model=MODEL, seed=0):
    return resolve(model, recipes.concrete(recipe, model.facts), seed)


def test_each_parameter_has_one_row_with_what_it_gets():
    plan = plan_of("he_normal")
    assert [row.name for row in plan.rows] == [
        *("h.0.attn.q_proj.weight", "h.0.attn.k_proj.weight", "h.0.attn.v_proj.weight"),
        *("h.0.q.weight", "h.0.k.weight", "h.0.v.weight", "fc.bias", "wte", "ln.weight", "pos"),
    ]
    query = plan["h.0.attn.q_proj.weight"]
    assert (query.path, query.shape, query.fans, query.block) == (PACKED.path, (4, 4), Fans(4, 4), 0)
    assert query.std == pytest.approx(0.5**0.5)
    assert (query.rule, query.source, str(query.initializer)) == ("role kernel", "draw", "he_normal()")
    assert plan["h.0.q.weight"].fans == Fans(6, 8)
    assert plan["fc.bias"].fans == Fans(6, 5)
    assert plan["fc.bias"].source == "constant"
    assert str(plan["wte"].initializer).startswith("with_row(")
    assert plan["ln.weight"].fans is None
    assert plan.tensor("wte").ties == ("head",)


def test_values_are_those_of_the_initializer_called_by_name():
    plan = plan_of("glorot_uniform", seed=5)
    packed = plan.fill(PACKED.path)
    for at, member in enumerate(QKV["s"]):
        alone = fanin.GlorotUniform()((4, 4), seed=5, name=f"h.0.attn.{member}.weight", axes="io")
        assert packed[:, 4 * at : 4 * at + 4].tobytes() == alone.tobytes()
    stored = plan.fill(UNEQUAL.path)
    assert stored.dtype.name == "bfloat16"
    for name, rows in (("q", slice(0, 8)), ("k", slice(8, 10)), ("v", slice(10, 12))):
        shape = (rows.stop - rows.start, 6)
        alone = fanin.GlorotUniform()(shape, seed=5, name=f"h.0.{name}.weight", axes="oi", dtype="bfloat16")
        assert stored[rows].tobytes() == alone.tobytes()
    table = plan.fill("wte")
    assert not table[2].any()
    assert (table[[0, 1, 3, 4, 5, 6]] != 0).all()
    assert plan.fill("pos").tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert (plan.fill("ln.weight") == 1).all()


@given(data=st.data())
def test_a_window_of_any_tensor_is_the_slice_of_the_whole(data):
    plan = plan_of("he_normal", seed=3)
    tensor = data.draw(st.sampled_from(MODEL.tensors))
    bounds = [sorted(data.draw(st.tuples(*[st.integers(0, size)] * 2))) for size in tensor.shape]
    window = tuple(slice(*pair) for pair in bounds)
    part = plan.fill(tensor.path, window=window)
    assert part.tobytes() == plan.fill(tensor.path)[window].tobytes()


def test_half_precision_is_float32_rounded_once():
    plan = plan_of("he_normal")
    wide = plan.fill(UNEQUAL.path, dtype="float32")
    assert (plan.fill(UNEQUAL.path) == wide.astype(plan.fill(UNEQUAL.path).dtype)).all()


def test_the_bias_of_a_layer_has_the_fans_of_its_kernel():
    third = fanin.VarianceScaling(1 / 3, "fan_in", "uniform")
    plan = plan_of(Recipe([(role("bias"), third), ("*", "zeros")]))
    assert plan["fc.bias"].std == pytest.approx((1 / 3 / 6) ** 0.5)


# --- rules that fit and rules that do not --------------------------------------------------------


def test_the_first_rule_that_matches_wins():
    plan = plan_of(Recipe([("*.q_proj.weight", "ones"), (role("kernel"), "orthogonal"), ("*", "he_normal")]))
    kinds = [type(row.initializer).__name__ for row in plan.rows[:4]]
    assert kinds == ["Ones", "Orthogonal", "Orthogonal", "Orthogonal"]


@pytest.mark.parametrize(
    ("rules", "error", "text"),
    [
        (
            [("*.c_proj.weight", "zeros"), ("*", "ones")],
            RecipeError,
            r"rule 1 \(\*\.c_proj\.weight\) matches no",
        ),
        (
            [("h.*", "ones"), ("*.q.*", "zeros"), ("*", "ones")],
            RecipeError,
            r"rule 2 .* never applies: .* all 1",
        ),
        (
            [("h.*", "zeros")],
            PlanError,
            r"no rule matches fc\.bias \(5,\) \(bias, linear\), wte .* and|ln\.weight",
        ),
        ([("ln.weight", "he_normal"), ("*", "ones")], None, ""),
        ([("ln.weight", "dirac"), ("*", "ones")], PlanError, r"'ln\.weight': "),
        (
            [("*.q.weight", fanin.RandomNormal(0.0, 1e38)), ("*", "ones")],
            PlanError,
            r"'h\.0\.q\.weight': .*reaches",
        ),
    ],
)
def test_a_rule_that_does_nothing_or_cannot_is_an_error(rules, error, text):
    if error is None:
        plan_of(Recipe(rules))
        return
    with pytest.raises(error, match=text):
        plan_of(Recipe(rules))


def test_an_optional_rule_may_match_nothing_and_an_inherited_one_may_be_covered():
    plan_of(Recipe([Rule("nothing", "zeros", optional=True), ("*", "he_normal")]))
    covered = Recipe([("*c_attn*", "zeros")])
    base = Recipe([(role("kernel"), "zeros"), ("*", "he_normal")]).on(
        Recipe([(role("kernel"), "ones"), ("*", "ones")])
    )
    assert plan_of(base)["h.0.q.weight"].initializer == fanin.Zeros()
    with pytest.raises(RecipeError, match="matches no"):
        plan_of(Recipe([("*", "ones")]).on(covered))


def test_a_parameter_of_no_known_layer_must_be_named():
    model = Model((SCALAR,))
    with pytest.raises(
        PlanError, match=r"no rule matches temperature \(\) \(unknown, clip\); name them in a rule"
    ):
        plan_of("he_normal", model)
    plan = plan_of(Recipe([("temperature", "constant(2.5)")]), model)
    assert plan.fill("temperature") == 2.5


def test_kept_values_are_not_made_and_not_touched():
    plan = plan_of(Recipe([("h.0.k.weight", "keep"), ("*", "ones")]))
    assert (plan["h.0.k.weight"].source, plan["h.0.k.weight"].initializer) == ("keep", None)
    with pytest.raises(PlanError, match="keeps values it does not know"):
        plan.fill(UNEQUAL.path)
    out = np.full((12, 6), 7.0, np.float32)
    plan.fill(UNEQUAL.path, out=out)
    assert (out[8:10] == 7).all()
    assert (np.delete(out, [8, 9], 0) == 1).all()
    assert not plan_of(Recipe([("*q*", "keep"), ("*", "keep")]), Model((UNEQUAL,))).sets(UNEQUAL.path)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (Model((BIAS, replace(BIAS, path="other"))), "two of the plan have the parameter 'fc.bias'"),
        (
            Model((BIAS, replace(BIAS, pieces=(replace(BIAS.pieces[0], name="b"),)))),
            "stored tensor 'fc.bias'",
        ),
    ],
)
def test_two_parameters_with_one_name_are_an_error(model, text):
    with pytest.raises(PlanError, match=text):
        plan_of("he_normal", model)


@pytest.mark.parametrize(
    "pieces",
    [
        (Piece("a", "kernel", "x", OI, ((0, 2), (0, 3))),),
        (Piece("a", "kernel", "x", OI, ((0, 3), (0, 3))), Piece("b", "kernel", "x", OI, ((2, 4), (0, 3)))),
        (Piece("a", "kernel", "x", OI, ((0, 5), (0, 3))),),
        (Piece("a", "kernel", "x", OI, ((0, 4),)),),
        (Piece("a", "kernel", "x", OI), Piece("b", "kernel", "x", OI)),
        (),
    ],
)
def test_pieces_must_make_up_their_tensor_exactly_once(pieces):
    with pytest.raises(PlanError, match="'w': "):
        Tensor("w", (4, 3), "float32", pieces)


def test_a_role_must_be_known():
    with pytest.raises(PlanError, match="'a': no role 'weight'; expected one of kernel"):
        Piece("a", "weight", "x", OI)


# --- keys ----------------------------------------------------------------------------------------


def test_an_alias_draws_by_the_other_name():
    plan = plan_of(Recipe([("*", "he_normal")], alias={"h.0.q": "query"}))
    assert plan["h.0.q.weight"].key == "query.weight"
    expected = fanin.HeNormal()((8, 6), seed=0, name="query.weight", axes="oi", dtype="bfloat16")
    assert plan.fill(UNEQUAL.path)[:8].tobytes() == expected.tobytes()
    assert "drawn by" in str(plan)


def test_positions_draw_the_same_numbers_whatever_the_names():
    renamed = Model(
        tuple(
            replace(t, path=f"x.{t.path}", pieces=tuple(replace(p, name=f"x.{p.name}") for p in t.pieces))
            for t in MODEL.tensors
        )
    )
    one = plan_of(Recipe([("*", "he_normal")], keys="position"))
    two = plan_of(Recipe([("*", "he_normal")], keys="position"), renamed)
    for tensor in MODEL.tensors:
        assert one.fill(tensor.path).tobytes() == two.fill(f"x.{tensor.path}").tobytes()


def test_two_names_that_draw_by_one_key_are_an_error():
    with pytest.raises(PlanError, match=r"two of the plan have the key 'w\.weight'"):
        plan_of(Recipe([("*", "he_normal")], alias={"h.0.q": "w", "h.0.k": "w"}))


# --- as data -------------------------------------------------------------------------------------

SAVED = Recipe([("*.q.weight", fanin.Scaled("orthogonal", 0.5)), ("*.v_proj.*", "torch:kaiming_uniform(a=1)"),
                ("*.k.weight", "keep"), ("*", "he_normal")], alias={"wte": "embed"})  # fmt: skip


def test_a_plan_saved_and_loaded_is_the_same_and_gives_the_same_bits(tmp_path):
    plan = plan_of(SAVED).with_digests()
    plan.save(tmp_path / "plan.json")
    read = Plan.from_file(tmp_path / "plan.json")
    assert read.diff(plan) == []
    assert read.to_dict() == plan.to_dict()
    for tensor in MODEL.tensors:
        if tensor.path != UNEQUAL.path:
            assert read.fill(tensor.path).tobytes() == plan.fill(tensor.path).tobytes()
    assert str(read) == str(plan)


def test_digests_are_those_of_the_stored_bytes():
    plan = plan_of(SAVED).with_digests()
    assert set(plan.digests) == {tensor.path for tensor in MODEL.tensors} - {UNEQUAL.path}
    for path, digest in plan.digests.items():
        assert digest == hashlib.sha256(plan.fill(path).tobytes()).hexdigest()


def spoil(path, value):
    """Put a value into a saved plan, at a path of keys."""
    data = json.loads(plan_of("he_normal").to_json())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "plan: "),
        ("[]", "Expected `object`"),
        (spoil(["contract"], "fanin/9"), "its values are those of 'fanin/9'"),
        (spoil(["seed"], -1), "`seed` must be in 0"),
        (spoil(["seed"], "x"), r"Expected `int`, got `str` - at `\$.seed`"),
        (spoil(["rows", 0, "initializer", "name"], "he_norml"), "no initializer 'he_norml'"),
        (spoil(["rows", 0, "shape"], [4, 5]), "path, shape, axes or dtype are not those"),
        (spoil(["rows", 0, "shape"], [4, "5"]), r"\$\.rows\[0\]\.shape\[1\]"),
        (spoil(["rows", 6, "initializer"], {"name": "dirac", "groups": 1}), "'fc.bias': "),
        (spoil(["rows", 0, "name"], "other"), "not the parameters of its tensors"),
        (spoil(["rows"], []), r"it has 0 rows for \d+ parameters of its tensors"),
        (spoil(["tensors", 0, "shape"], [4, -12]), "must hold integers >= 0"),
        (spoil(["tensors", 0, "shape"], [1 << 40, 1 << 40]), r"2\*\*63"),
        (spoil(["tensors", 2, "shape"], [6]), "path, shape, axes or dtype are not those"),
        (spoil(["tensors", 0, "dtype"], "float31"), "float31"),
        (spoil(["tensors", 0, "pieces", 0, "role"], "weight"), "no role 'weight'"),
        (spoil(["tensors", 0, "pieces"], []), "do not make up"),
    ],
)
def test_a_bad_plan_file_is_one_clear_error(text, error):
    with pytest.raises(PlanError, match=error):
        Plan.from_json(text)


def test_a_difference_names_the_parameter_and_both_values():
    one = plan_of("he_normal")
    two = plan_of(Recipe([("fc.bias", "ones"), ("*", "he_normal")]), seed=1)
    assert [str(change) for change in one.diff(two)] == [
        "plan: seed 0 -> 1",
        "fc.bias: initializer zeros() -> ones()",
    ]
    less = plan_of("he_normal", Model(MODEL.tensors[:-1]))
    assert [str(change) for change in one.diff(less)] == ["pos: parameter (2, 2) -> absent"]
    assert one.diff(plan_of("he_normal")) == []


def test_a_plan_prints_one_line_per_parameter_and_folds_on_request():
    blocks = [
        replace(
            UNEQUAL,
            path=f"h.{n}.qkv.weight",
            pieces=tuple(replace(p, name=p.name.replace("0", str(n))) for p in UNEQUAL.pieces),
        )
        for n in (0, 1, 2, 4)
    ]
    plan = plan_of("he_normal", Model(tuple(blocks)))
    assert len(str(plan).splitlines()) == 3 + 12
    folded = plan.table(fold=True)
    assert len(folded.splitlines()) == 3 + 3
    assert "h.{0..2,4}.q.weight" in folded


def test_a_seed_is_required():
    with pytest.raises(SeedError, match="`seed` is required"):
        plan_of("he_normal", seed=None)


@pytest.mark.parametrize(
    "ask", [lambda p: p["fc.bais"], lambda p: p.tensor("fc.bais"), lambda p: p.fill("fc.bais")]
)
def test_an_unknown_name_is_told_the_near_ones(ask):
    with pytest.raises(PlanError, match=r"'fc\.bais'.* did you mean fc\.bias"):
        ask(plan_of("he_normal"))


def test_io_and_oi_store_the_same_numbers():
    stored = {
        axes: Tensor("w", shape, "float32", (Piece("w", "kernel", "linear", roles),))
        for axes, shape, roles in (("io", (3, 5), IO), ("oi", (5, 3), OI))
    }
    one, two = (plan_of("he_normal", Model((tensor,))).fill("w") for tensor in stored.values())
    assert one.tobytes() == np.ascontiguousarray(two.T).tobytes()


def test_members_of_stored_values_are_in_canonical_order():
    plan = plan_of("he_normal", seed=2)
    packed = plan.members(PACKED.path, plan.fill(PACKED.path))
    assert list(packed) == [f"h.0.attn.{member}.weight" for member in QKV["s"]]
    for name, values in packed.items():
        assert values.tobytes() == fanin.HeNormal()((4, 4), seed=2, name=name, axes="oi").tobytes()
    unequal = plan.members(UNEQUAL.path, plan.fill(UNEQUAL.path))
    assert [values.size for values in unequal.values()] == [48, 12, 12]


@pytest.mark.parametrize(
    "word", ["torch:kaiming_normal(nonlinearity='relu')", "keras:he_uniform", "flax:lecun_normal"]
)
def test_a_frameworks_word_counts_the_layers_fans_in_any_layout(word):
    plans = [
        plan_of(
            Recipe([("w", word)]),
            Model((Tensor("w", shape, "float32", (Piece("w", "kernel", "linear", axes),)),)),
        )
        for axes, shape in ((IO, (200, 10)), (OI, (10, 200)), (Axes(out=(1,), in_=(0,)), (200, 10)))
    ]
    scale = {"torch": 2, "keras": 2, "flax": 1}[word.partition(":")[0]]
    assert [plan["w"].std for plan in plans] == [pytest.approx((scale / 200) ** 0.5)] * 3
    one, two, three = (plan.fill("w") for plan in plans)
    assert one.tobytes() == np.ascontiguousarray(two.T).tobytes() == three.tobytes()
    assert str(Plan.from_json(plans[0].to_json())) == str(plans[0])


def test_a_plan_is_identified_by_all_it_says_but_its_digests():
    plan = plan_of("he_normal")
    assert plan.identity() == plan.with_digests().identity() == Plan.from_json(plan.to_json()).identity()
    others = [
        plan_of("he_normal", seed=1),
        plan_of("he_uniform"),
        plan_of(Recipe([("*", "he_normal")], alias={"wte": "embed"})),
        plan_of("he_normal", Model(MODEL.tensors[1:], MODEL.facts)),
    ]
    assert len({each.identity() for each in (plan, *others)}) == 5


# --- padding -------------------------------------------------------------------------------------

HEAD = Tensor("out.weight", (12, 6), "float32", (Piece("out.weight", "kernel", "linear", OI),))


def test_a_padded_tensor_holds_the_numbers_of_the_tensor_in_it_and_zeros():
    padded = plan_of(Recipe([("*", "glorot_normal")], unpadded={"out.weight": (10, 5)}), Model((HEAD,)))
    plain = plan_of("glorot_normal", Model((replace(HEAD, shape=(10, 5)),)))
    whole = padded.fill("out.weight")
    assert padded["out.weight"].fans == plain["out.weight"].fans == Fans(5, 10)
    assert np.array_equal(whole[:10, :5], plain.fill("out.weight"))
    assert not whole[10:].any()
    assert not whole[:, 5:].any()
    for rows in (slice(0, 9), slice(9, 12), slice(10, 12)):  # shards with and without padding
        window = (rows, slice(0, 6))
        assert np.array_equal(padded.fill("out.weight", window=window), whole[window])
    assert Plan.from_json(padded.to_json()) == padded
    assert np.array_equal(Plan.from_json(padded.to_json()).fill("out.weight"), whole)


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (
            {"out.weigh": (10, 5)},
            "no parameter with a tensor of its own: 'out.weigh'; did you mean out.weight?",
        ),
        ({"out.weight": (13, 6)}, "does not lie inside 'out.weight', whose shape is (12, 6)"),
        ({"out.weight": (12,)}, "does not lie inside 'out.weight', whose shape is (12, 6)"),
        ({"h.0.q.weight": (8, 6)}, "'h.0.q.weight' is stored as a part of 'h.0.qkv.weight'"),
    ],
)
def test_what_cannot_be_padded_is_an_error(shapes, text):
    with pytest.raises(PlanError, match=re.escape(text)):
        plan_of(Recipe([("*", "he_normal")], unpadded=shapes), Model((HEAD, UNEQUAL)))
