"""The model families: a folder for each, and the table that names them as the catalog does."""

from models.catalog import FamilyName
from models.families import blip, blip2, library
from models.families.family import Family

FAMILIES: dict[FamilyName, Family] = {"blip": blip.FAMILY, "blip2": blip2.FAMILY, **library.FAMILIES}
