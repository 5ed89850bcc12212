"""The recipe: its schema, loading and explanation."""

from rlcore.recipe.explain import batch_arithmetic
from rlcore.recipe.load import dump_recipe, load_recipe, load_section, saved_recipe
from rlcore.recipe.schema import Recipe
