"""BLIP: Li et al. 2022, as salesforce/BLIP computes it."""

from models.families.blip import networks
from models.families.blip.runners import make_runner
from models.families.family import Family

FAMILY = Family(networks, make_runner, takes_template=False)
