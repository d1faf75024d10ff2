"""BLIP-2: Li et al. 2023, as LAVIS computes it."""

from models.families.blip2 import networks
from models.families.blip2.runners import make_runner
from models.families.family import Family

FAMILY = Family(networks, make_runner, takes_template=True)
