"""A recipe from values: few rules, the same laws again, evidence in comments, and doubts said."""

import numpy as np
import pytest

import fanin
from fanin import Recipe
from fanin.audit import measure
from fanin.audit.fingerprint import fit_of
from fanin.audit.infer import infer
from fanin.errors import TraceError
from fanin.fans import LOOKUP, OI, Axes, Fans
from fanin.model import Model, Piece, Tensor, beside
from fanin.plan import resolve


def network(blocks=12, width=32):
    """The parameters of a small transformer: (name, shape, role, layer, axes, block)."""
    one = Axes((0,), ())
    yield "wte.weight", (200, width), "embedding", "embedding", LOOKUP, None
    for at in range(blocks):
        for leaf, n_out, n_in in (
            ("attn.q_proj", width, width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ):
            yield f"h.{at}.{leaf}.weight", (n_out, n_in), "kernel", "linear", OI, at
            yield f"h.{at}.{leaf}.bias", (n_out,), "bias", "linear", beside(Fans(n_in, n_out)), at
        yield f"h.{at}.ln.weight", (width,), "norm_scale", "layer_norm", one, at
        yield f"h.{at}.ln.bias", (width,), "norm_bias", "layer_norm", one, at
    yield "head.weight", (10, width), "head", "linear", OI, None


def model(parameters):
    return Model(
        tuple(
            Tensor(name, shape, "float32", (Piece(name, role, layer, axes, block=block),))
            for name, shape, role, layer, axes, block in parameters
        )
    )


def drawn(described, recipe, seed=0):
    """A model's numbers, drawn by a recipe."""
    plan = resolve(described, Recipe(recipe), seed)
    return tuple(measure.weights(described, plan.fill))


GPT2 = [
    ("*.c_proj.weight", f"random_normal(0.0, {0.02 / 24**0.5})"),
    (fanin.role("embedding", "kernel", "head"), "random_normal(0.0, 0.02)"),
    ("*", "zeros"),
]


def recovered(weights, described, **options):
    """What was inferred, read again, planned: each parameter's initializer, checked against its values."""
    found = infer(weights, **options)
    plan = resolve(described, found.recipe, 0)
    for each in weights:
        made = plan[each.name].initializer
        assert made is not None, each.name
        if str(made).startswith("orthogonal"):
            assert made.describe(each.shape, each.axes).std == pytest.approx(each.values.rms, rel=1e-4)
        elif each.values.std:
            assert fit_of(each, "", made) is not None, (each.name, str(made))
        else:
            assert made(each.shape, seed=0, name="w").flat[0] == each.values.mean
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_model_of_twelve_blocks_has_few_rules(seed, tmp_path):
    described = model(network())
    found = recovered(drawn(described, GPT2, seed), described)
    assert len(found.recipe.rules) <= 10
    assert found.recipe.rules[1].match.name == ("h.*.attn.c_proj.weight", "h.*.mlp.c_proj.weight")
    assert "GPT-2's, into the residual stream" in found.text
    (tmp_path / "r.toml").write_text(found.text)
    assert Recipe.from_file(tmp_path / "r.toml").to_dict() == found.recipe.to_dict()


def test_the_evidence_is_what_was_measured():
    described = model(network())
    weights = drawn(described, GPT2)
    text = infer(weights).text
    kernels = [w for w in weights if w.role == "kernel" and "c_proj" not in w.name]
    total = sum(w.values.n for w in kernels)
    std = (sum(w.values.n * w.values.rms**2 for w in kernels) / total) ** 0.5
    front = "# fixed: normal, std 0.02\n"
    [line] = [line for line in text.splitlines() if line.startswith("# 24 tensors") and front + line in text]
    said, _, error = line.removeprefix("# 24 tensors, std ").partition(" +- ")
    assert float(error) == pytest.approx(0.02 / (2 * total) ** 0.5, rel=0.1)
    assert abs(float(said) - std) < float(error)


@pytest.mark.parametrize(
    "init",
    [
        "he_normal",
        "glorot_uniform",
        "variance_scaling(0.3333333333333333, 'fan_in', 'uniform')",
        "orthogonal(gain=2.0)",
        "truncated_normal(0.0, 0.02)",
        "variance_scaling(0.123, 'fan_in', 'uniform')",
        "random_normal(0.0, 0.0123)",
        "random_uniform(0.2, 0.3)",
    ],
)
def test_any_law_of_kernels_is_found_again(init):
    described = model(network(blocks=3))
    found = recovered(drawn(described, [("*", init)]), described)
    assert len(found.recipe.rules) <= 7


def test_square_layers_leave_a_doubt_and_others_end_it():
    square = model([(f"{at}.weight", (64, 64), "kernel", "linear", OI, None) for at in range(3)])
    text = infer(drawn(square, [("*", "he_uniform")])).text
    [doubt] = [line for line in text.splitlines() if line.startswith("# ? could be")]
    assert "variance_scaling(scale=2.0, mode='fan_out', distribution='uniform')" in doubt
    assert doubt.endswith("fan_in is fan_out")
    both = model([(f"{at}.weight", (64, 32 + 32 * at), "kernel", "linear", OI, None) for at in range(3)])
    assert "# ? could be" not in infer(drawn(both, [("*", "he_uniform")])).text


def test_what_no_law_fits_is_kept_and_said():
    described = model(
        [("a.weight", (40, 50), "kernel", "linear", OI, None), ("t", (60, 80), "position", "x", OI, None)]
    )
    values = {
        "a.weight": fanin.HeNormal()((40, 50), seed=0, name="a", axes="oi"),
        "t": np.exp(np.linspace(0, 9, 4800, dtype=np.float32)).reshape(60, 80),
    }
    found = infer(tuple(measure.weights(described, values.get)))
    assert found.recipe.rules[-1].init == "keep"
    assert "# ? fits no law that is known" in found.text
    assert resolve(described, found.recipe, 0)["t"].source == "keep"


def test_exceptions_are_by_kind_of_layer_where_they_are_all_of_it():
    parameters = [(f"c.{at}.weight", (16, 8, 3, 3), "kernel", "conv2d", OI, None) for at in range(2)]
    parameters += [(f"l.{at}.weight", (64, 32 + at), "kernel", "linear", OI, None) for at in range(3)]
    described = model(parameters)
    found = recovered(
        drawn(described, [(fanin.layer("conv2d"), "he_normal"), ("*", "glorot_uniform")]), described
    )
    assert [str(rule.match) for rule in found.recipe.rules] == ["role kernel, layer conv2d", "role kernel"]


def test_one_exception_is_named_and_its_glob_takes_no_other():
    described = model([(f"l[{at}].3.weight", (64, 32 + at), "kernel", "linear", OI, None) for at in range(4)])
    recipe = [("l[[]2].3.weight", "he_normal"), ("*", "glorot_uniform")]
    found = recovered(drawn(described, recipe), described)
    assert found.recipe.rules[0].match.name == ("l[[]2].3.weight",)


def test_the_frameworks_own_default_goes_first():
    described = model([("0.weight", (64, 64), "kernel", "linear", OI, None)])
    weights = drawn(described, [("*", "lecun_normal")])
    assert "flax default of linear" in infer(weights, framework="jax").text


def test_a_target_cannot_break_the_text():
    described = model([("w", (4, 4), "kernel", "linear", OI, None)])
    found = infer(drawn(described, [("*", "he_normal")]), target='x\n[[rules]]\nname = "</script>')
    assert found.text.count("[[rules]]\n") == 1


def test_a_model_without_parameters_is_an_error():
    with pytest.raises(TraceError, match="has no parameters"):
        infer((), target="pkg:build")
