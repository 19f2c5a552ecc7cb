"""A model's values, the recipe inferred from them, and whether its plan has the laws they were drawn by."""

from pathlib import Path
from typing import Any

from fanin import Recipe, loading
from fanin.audit.fingerprint import fit_of
from fanin.audit.infer import Inferred, infer


def recovered(model: Any, framework: str, folder: Path, keeps: tuple[str, ...] = ()) -> Inferred:
    """Infer, write, read, plan; assert that each parameter may be a sample of what it is planned to be."""
    weights = loading.weights_of(model).weights
    found = infer(weights, framework=framework)
    file = folder / "inferred.toml"
    file.write_text(found.text, encoding="utf-8")
    assert Recipe.from_file(file).to_dict() == found.recipe.to_dict()
    plan = loading.adapter_of(model).plan(model, str(file), seed=0)
    for each in weights:
        made = plan[each.name].initializer
        if made is None:
            assert each.name in keeps, each.name
        elif "orthogonal" in str(made):
            width = made.describe(each.shape, each.axes).std
            assert abs(each.values.rms / width - 1) < 5 / (2 * each.values.n) ** 0.5, each.name
        elif "with_row" in str(made):  # of a table whose padding the layer knows
            assert fit_of(each, "", made._within) is not None, (each.name, str(made))
        elif each.values.std:
            assert fit_of(each, "", made) is not None, (each.name, str(made))
        else:
            one = made.describe(each.shape, each.axes)
            assert one.mean == each.values.mean or each.values.n == 1, each.name
    return found
