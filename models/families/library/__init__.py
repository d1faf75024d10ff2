"""Families whose networks are the transformers library's: a module for each, and the table of them."""

from models.catalog import FamilyName
from models.families.family import Family
from models.families.library import clip

FAMILIES: dict[FamilyName, Family] = {"clip": clip.FAMILY}
