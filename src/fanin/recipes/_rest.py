"""What recipes say of the parameters that are not their point."""

from fanin.initializers import RandomNormal, VarianceScaling
from fanin.recipe import OWN, Match, Rule, RuleInit, RuleLike, named, role

AS_DEFINED = Rule(named("*"), OWN, optional=True)  # what a layer defines itself goes before any role
TABLES = RandomNormal(0.0, 0.02)
# PyTorch's kaiming_uniform_(a=sqrt(5)): uniform in +-1 / sqrt(fan_in)
TORCH = VarianceScaling(1 / 3, "fan_in", "uniform")


def rest(kernels: RuleInit, tables: RuleInit = TABLES) -> tuple[RuleLike, ...]:
    """The last rules of a recipe: kernels and tables (embeddings, positions) drawn, all else neutral."""
    return AS_DEFINED, Rule(role("embedding", "position"), tables, optional=True), (named("*"), kernels)


def optional(*rules: tuple[Match, RuleInit]) -> tuple[Rule, ...]:
    """Rules that only some of the models of a recipe have use for."""
    return tuple(Rule(match, init, optional=True) for match, init in rules)
