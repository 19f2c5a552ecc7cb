"""Named recipes by name, and anything that can be used as a recipe as a `Recipe`."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias

from fanin.errors import RecipeError, UnknownNameError, near
from fanin.initializers import Initializer, catalogue
from fanin.initializers import get as initializer
from fanin.initializers.structured import check_count
from fanin.recipe import Recipe

P = ParamSpec("P")
RecipeLike: TypeAlias = "Recipe | Named | Initializer | str | Path"
RECIPES: dict[str, Callable[..., Recipe]] = {}
FILES = (".toml", ".json")


def recipe(function: Callable[P, Recipe]) -> Callable[P, Recipe]:
    """List a function as the named recipe of its name; its arguments are facts of a model, or options.

    Facts are counts and sizes: an argument that is annotated as an int must be one, and >= 1.
    """
    signature = inspect.signature(function)
    counts = [p.name for p in signature.parameters.values() if p.annotation in (int, int | None)]

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Recipe:
        given = signature.bind(*args, **kwargs).arguments
        for name in counts:
            if given.get(name) is not None:
                check_count(name, given[name])
        return function(*args, **kwargs)

    RECIPES[function.__name__] = checked
    return checked


@dataclass(frozen=True)
class Named:
    """A named recipe and the arguments it was given; called with a model's facts it is a `Recipe`."""

    function: Callable[..., Recipe]
    given: Mapping[str, Any]

    @property
    def needs(self) -> list[str]:
        """Facts that were not given and have no default."""
        parameters = inspect.signature(self.function).parameters.values()
        return [p.name for p in parameters if p.default is p.empty and p.name not in self.given]

    def __call__(self, facts: Mapping[str, int] | None = None) -> Recipe:
        """The recipe, facts of the model under the arguments given.

        Raises
        ------
        RecipeError
            When a fact is missing.
        """
        known = inspect.signature(self.function).parameters
        arguments = {**{name: value for name, value in (facts or {}).items() if name in known}, **self.given}
        missing = [name for name in self.needs if name not in arguments]
        name = self.function.__name__
        if missing:
            example = ", ".join(f"{fact}=12" for fact in missing)
            raise RecipeError(
                f"recipe {name!r} needs {', '.join(missing)}, which the model does not show; "
                f"give it: {name}({example})"
            )
        said = ", ".join(f"{argument}={value!r}" for argument, value in arguments.items())
        made = self.function(**arguments)
        return Recipe(
            made.rules,
            base=made.base,
            keys=made.keys,
            alias=made.alias,
            name=f"{name}({said})" if said else name,
        )


def names() -> list[str]:
    """The named recipes.

    Examples
    --------
    >>> "gpt2" in names()
    True
    """
    return sorted(RECIPES)


def get(expression: str) -> Named:
    """The named recipe that ``"gpt2"`` or ``"gpt2(n_layer=12)"`` describes.

    Examples
    --------
    >>> get("gpt2").needs
    ['n_layer']
    >>> print(get("gpt2(n_layer=8)")().rules[0].init)
    random_normal(mean=0.0, stddev=0.005)
    """
    name, args, kwargs = catalogue.parse(expression)
    if name not in RECIPES:
        raise UnknownNameError(f"no recipe {name!r}; {near(name, RECIPES)}")
    function = RECIPES[name]
    try:
        given = inspect.signature(function).bind_partial(*args, **kwargs).arguments
    except TypeError as error:
        takes = ", ".join(inspect.signature(function).parameters) or "no arguments"
        raise RecipeError(f"recipe {expression!r}: {name} takes {takes} ({error})") from error
    return Named(function, given)


def concrete(what: RecipeLike, facts: Mapping[str, int] | None = None) -> Recipe:
    """Anything that can be used as a recipe, with its base, for a model with these facts.

    Parameters
    ----------
    what : Recipe, Initializer, str or Path
        A recipe, an initializer (which fills kernels), the name or expression of either (a named recipe goes
        before an initializer of the same name), or a TOML or JSON file.
    facts : mapping, optional
        What named recipes may ask for: ``n_layer``, ``d_model``, ...
    """
    if isinstance(what, Path) or (isinstance(what, str) and what.endswith(FILES)):
        what = Recipe.from_file(what)
    if isinstance(what, Named):
        return concrete(what(facts), facts)
    if isinstance(what, Recipe):
        return what if what.base is None else what.on(concrete(what.base, facts))
    if isinstance(what, str) and what.partition("(")[0].strip() in RECIPES:
        return concrete(get(what), facts)
    if isinstance(what, str | Initializer):
        try:
            return Recipe([("*", initializer(what))], name=str(what))
        except UnknownNameError as error:
            raise UnknownNameError(f"{error}; named recipes: {', '.join(names())}") from error
    raise RecipeError(f"`recipe` must be a name, an initializer, a fanin.Recipe or a file, got {what!r}")
