"""Recipes by name: ``gpt2``, ``llama``, ``resnet``, ... One short function each, in a file of its name."""

from fanin.recipes._registry import RECIPES as RECIPES
from fanin.recipes._registry import Named as Named
from fanin.recipes._registry import RecipeLike as RecipeLike
from fanin.recipes._registry import concrete as concrete
from fanin.recipes._registry import get as get
from fanin.recipes._registry import names as names
from fanin.recipes._registry import recipe as recipe
from fanin.recipes.gpt2 import gpt2 as gpt2
