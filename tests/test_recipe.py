"""Recipes: matching, files, and errors that say where."""

import json

import pytest

import fanin
from fanin import recipes
from fanin.errors import RecipeError, UnknownNameError
from fanin.fans import OI
from fanin.model import Member, Piece
from fanin.recipe import Match, Recipe, Rule, activation, block, everywhere, layer, named, role, shape

PIECE = Piece("h.3.fc.weight", "kernel", "conv2d", OI, activation="gelu", block=3)
MEMBER = Member("h.3.fc.weight", (8, 4, 3, 3), OI)

FITS = [
    (named("*.fc.weight"), "*.fc.weight"),
    (named("nothing", "h.?.fc.*"), "h.?.fc.*"),
    (named("h.[0-4].*"), "h.[0-4].*"),
    (role("kernel", "bias"), "role kernel"),
    (role("k*"), "role k*"),
    (layer("linear", "conv*"), "layer conv*"),
    (shape("8, 4, 3, 3"), "shape 8, 4, 3, 3"),
    (shape("..., 3, 3"), "shape ..., 3, 3"),
    (shape("8, ..."), "shape 8, ..."),
    (shape("*, *, *, *"), "shape *, *, *, *"),
    (shape(">=8, <5, >2, <=3"), "shape >=8, <5, >2, <=3"),
    (activation("gelu*"), "activation gelu*"),
    (block(1, 3), "block 3"),
    (role("kernel") & layer("conv2d") & named("h.*") & block(3), "h.*, role kernel, layer conv2d, block 3"),
]
MISSES = [
    *(named("fc.weight"), named("H.3.*"), role("bias"), layer("linear"), activation("relu"), block(0)),
    *(shape("8, 4"), shape("..., 3, 2"), shape(">8, ..."), shape("*, *, *"), shape("*, *, *, *, ...,*")),
    role("kernel") & named("*.bias"),
]


@pytest.mark.parametrize(("match", "reason"), FITS, ids=str)
def test_a_match_says_by_which_alternatives_it_fits(match, reason):
    assert match.reason(PIECE, MEMBER) == reason


@pytest.mark.parametrize("match", MISSES, ids=str)
def test_a_match_needs_every_condition(match):
    assert match.reason(PIECE, MEMBER) is None


def test_a_layer_without_activation_or_block_has_none_to_match():
    bare = Piece("w", "kernel", "linear", OI)
    assert activation("*").reason(bare, MEMBER) is None
    assert block(0).reason(bare, MEMBER) is None


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: role("kernal"), "no role 'kernal'; did you mean kernel"),
        (lambda: shape("a, b"), "cannot read shape 'a, b'"),
        (lambda: shape("..., ..."), "cannot read shape"),
        (Match, "needs a condition"),
        (lambda: role("bias") & role("kernel"), "both sides of & say role"),
        (lambda: Recipe([]), "needs a rule"),
        (
            lambda: Recipe([("*", "he_norml")]),
            r"rule 1 \(\*\): no initializer 'he_norml'; did you mean he_normal",
        ),
        (lambda: Recipe([("*", "zeros"), "zeros"]), r"rule 2: expected \(match, initializer\)"),
        (lambda: Recipe([(3, "zeros")]), "matches by a glob or a fanin.Match, got 3"),
        (lambda: Recipe([("*", "zeros")], dialect="pytorch"), "`dialect` 'pytorch'; did you mean torch"),
        (lambda: Recipe([("*", "zeros")], keys="name"), "`keys` 'name'; expected one of path, position"),
        (lambda: Recipe([("*", "zeros")], keys="position", alias={"a": "b"}), "nothing to rename"),
    ],
)
def test_a_malformed_rule_is_one_clear_error(make, text):
    with pytest.raises(RecipeError, match=text):
        make()


def test_a_bare_name_is_read_in_the_dialect_of_the_recipe():
    rules = [("a", "kaiming_normal"), ("b", "zeros"), ("c", "keras:he_normal")]
    made = [rule.init for rule in Recipe(rules, dialect="torch").rules]
    assert str(made[0]).startswith("torch:kaiming_normal_(")
    assert str(made[1]) == "torch:zeros_()"
    assert str(made[2]).startswith("keras:he_normal(")
    with pytest.raises(RecipeError, match=r"rule 1 \(d\): no initializer 'lecun_normal' in torch"):
        Recipe([("d", "lecun_normal")], dialect="torch")
    assert Recipe(rules).rules[0].init == fanin.HeNormal()


# --- files ---------------------------------------------------------------------------------------

RULES = [
    Rule("*.c_proj.weight", fanin.RandomNormal(0.0, 0.01)),
    Rule(role("bias", "norm_bias") & layer("conv*") & block(0, 2), "zeros", optional=True),
    Rule(shape(">=1024, ...") & activation("relu"), fanin.Scaled("he_normal", 0.5)),
    Rule("*.A_log", "keep"),
    Rule("*.table", fanin.Constant([1.0, 2.0])),
    Rule("*", "torch:kaiming_uniform(a=1)"),
]
RECIPE = Recipe(RULES, base="glorot_uniform", alias={"model.": "", "lm_head": "head"}, name="mine")


@pytest.mark.parametrize(("suffix", "write"), [("toml", Recipe.to_toml), ("json", Recipe.to_json)])
def test_a_recipe_written_and_read_is_the_same(tmp_path, suffix, write):
    path = tmp_path / f"r.{suffix}"
    path.write_text(write(RECIPE), encoding="utf-8")
    read = Recipe.from_file(path)
    assert read.to_dict() == RECIPE.to_dict()
    assert [str(rule) for rule in read.rules] == [str(rule) for rule in RECIPE.rules]
    assert read.rules[0].init == RULES[0].init
    assert (read.base, read.alias, read.name) == (RECIPE.base, RECIPE.alias, RECIPE.name)


def test_a_toml_file_reads_as_a_person_writes_it(tmp_path):
    path = tmp_path / "gpt.toml"
    path.write_text(
        'dialect = "torch"\n[alias]\n"transformer." = ""\n'
        '[[rules]]\nname = ["*.c_proj.weight", "*.o.weight"]\ninit = "normal(std=0.01)"\n'
        '[[rules]]\nrole = "bias"\nblock = 0\ninit = "zeros"\noptional = true\n'
    )
    first, second = Recipe.from_file(path).rules
    assert first.match == named("*.c_proj.weight", "*.o.weight")
    assert str(first.init) == "torch:normal_(mean=0.0, std=0.01)"
    assert second.match == role("bias") & block(0)
    assert second.optional


BAD_FILES = [
    ({"rules": [{"name": "*", "inti": "x", "init": "zeros"}]}, "rule 1: no key 'inti'; did you mean init"),
    ({"rules": [{"name": "*"}]}, "rule 1: Object missing required field `init`"),
    ({"rules": [{"name": "a", "init": "zeros"}, {"name": 3, "init": "x"}]}, "rule 2, key 'name': Expected"),
    ({"rules": [{"name": "*", "init": "he_norml"}]}, r"rule 1 \(\*\): no initializer 'he_norml'"),
    ({"rules": [{"name": "*", "init": "he_normal(3)"}]}, r"rule 1 \(\*\): .*takes no arguments"),
    ({"rules": [{"name": "*", "init": {"name": "constant", "value": "x"}}]}, r"rule 1 \(\*\):"),
    ({"rules": [{"init": "zeros"}]}, "rule 1: a rule needs a condition"),
    ({"rules": [{"role": "bai", "init": "zeros"}]}, "rule 1: no role 'bai'"),
    ({"rules": [{"role": [1], "init": "zeros"}]}, "rule 1, key 'role': Expected"),
    ({"rulez": []}, "no key 'rulez'; did you mean rules"),
    ({"rules": 3}, "key 'rules': Expected `array`"),
    ({"keys": "hash", "rules": []}, "key 'keys': Invalid enum value 'hash'"),
    ({"rules": []}, "needs a rule, or a `base`"),
    ({"alias": {"a": 1}, "rules": []}, "key 'alias'"),
    ([], "Expected `object`"),
]


@pytest.mark.parametrize(("data", "text"), BAD_FILES)
def test_a_bad_file_names_the_file_the_rule_and_the_key(tmp_path, data, text):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    with pytest.raises(RecipeError, match=text) as caught:
        Recipe.from_file(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["bad.toml", "bad.json"])
def test_a_file_that_does_not_parse_names_the_line(tmp_path, name):
    path = tmp_path / name
    path.write_text("\n\n[[rules\n")
    with pytest.raises(RecipeError, match=r"line 3|line: 3") as caught:
        Recipe.from_file(path)
    assert str(path) in str(caught.value)


# --- what counts as a recipe ---------------------------------------------------------------------


def test_an_initializer_as_a_recipe_fills_kernels_and_starts_the_rest_neutral():
    one, two = recipes.concrete("he_normal"), Recipe([("*", fanin.HeNormal())])
    assert one.concrete == two.concrete == everywhere(fanin.HeNormal())
    chosen = {
        what: next(
            str(rule.init)
            for rule in one.concrete
            if rule.init != "own" and rule.match.reason(Piece(name, what, "x", OI), Member(name, (2,), OI))
        )
        for what, name in [
            *(
                ("kernel", "w"),
                ("recurrent_kernel", "w"),
                ("head", "w"),
                ("embedding", "w"),
                ("position", "w"),
            ),
            *(("bias", "b"), ("norm_bias", "b"), ("norm_scale", "s"), ("norm_offset", "s"), ("slope", "a")),
            *(("gate_bias", "bias_ih.input_gate"), ("recurrent_bias", "bias_hh.forget_gate"), ("scale", "s")),
        ]
    }
    normal = "random_normal(mean=0.0, stddev=0.02)"
    assert chosen == {
        **dict.fromkeys(("kernel", "recurrent_kernel", "head"), "he_normal()"),
        **dict.fromkeys(("embedding", "position"), normal),
        **dict.fromkeys(("bias", "norm_bias", "norm_offset", "gate_bias", "recurrent_bias"), "zeros()"),
        **dict.fromkeys(("norm_scale", "scale"), "ones()"),
        "slope": "constant(value=0.25)",
    }
    forget = Piece("lstm.bias_ih.forget_gate", "gate_bias", "lstm", OI)
    first = next(
        r for r in one.concrete if r.init != "own" and r.match.reason(forget, Member(forget.name, (2,), OI))
    )
    assert first.init == fanin.Ones()


def test_every_form_of_a_recipe_is_understood(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('base = "he_normal"\n')
    for what in ("he_normal", fanin.HeNormal(), Recipe([("*", "he_normal")]), path, str(path)):
        assert fanin.HeNormal() in [rule.init for rule in recipes.concrete(what).concrete]


def test_rules_before_a_base_go_first_and_the_base_is_inherited():
    recipe = recipes.concrete(Recipe([("*.bias", "ones")], base="gpt2"), {"n_layer": 2})
    assert recipe.rules[0].init == fanin.Ones()
    assert not recipe.rules[0].inherited
    assert all(rule.inherited for rule in recipe.rules[1:])
    assert recipe.rules[1].init == fanin.RandomNormal(0.0, 0.01)


@pytest.mark.parametrize(
    ("what", "error", "text"),
    [
        ("gpt2", RecipeError, r"recipe 'gpt2' needs n_layer.*give it: gpt2\(n_layer=12\)"),
        ("gpt2(n_layr=2)", RecipeError, "gpt2 takes n_layer"),
        ("gtp2", UnknownNameError, "no initializer 'gtp2'.*named recipes: .*gpt2"),
        (3, RecipeError, "`recipe` must be a name, an initializer, a fanin.Recipe or a file, got 3"),
    ],
)
def test_what_is_no_recipe_is_one_clear_error(what, error, text):
    with pytest.raises(error, match=text):
        recipes.concrete(what, {})


def test_aliases_rename_whole_names_and_their_dotted_fronts():
    recipe = Recipe([("*", "zeros")], alias={"model.": "", "lm_head": "head", "a.b": "c"})
    names = ["model.w", "lm_head.weight", "lm_head", "lm_headless", "a.b", "a.b.c", "a.bc", "modelx.w"]
    assert [recipe.key(name) for name in names] == [
        *("w", "head.weight", "head", "lm_headless", "c", "c.c", "a.bc", "modelx.w"),
    ]
