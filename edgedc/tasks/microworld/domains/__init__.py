"""Walks of life, one file each: those that students are trained on, and those that they never see."""

from edgedc.tasks.microworld.domains.aquarium import AQUARIUM
from edgedc.tasks.microworld.domains.farm import FARM
from edgedc.tasks.microworld.domains.garden import GARDEN
from edgedc.tasks.microworld.domains.party import PARTY
from edgedc.tasks.microworld.domains.post import POST
from edgedc.tasks.microworld.domains.reading import READING
from edgedc.tasks.microworld.domains.recipes import RECIPES
from edgedc.tasks.microworld.domains.savings import SAVINGS
from edgedc.tasks.microworld.domains.shopping import SHOPPING
from edgedc.tasks.microworld.domains.sport import SPORT
from edgedc.tasks.microworld.domains.travel import TRAVEL
from edgedc.tasks.microworld.domains.work import WORK
from edgedc.tasks.microworld.story import Domain

# Problems are drawn by place in these tuples: append, or every seed makes other problems.
TRAINED: tuple[Domain, ...] = (SHOPPING, TRAVEL, RECIPES, SAVINGS, FARM, WORK)
HELD_OUT: tuple[Domain, ...] = (READING, GARDEN, SPORT, PARTY, AQUARIUM, POST)
