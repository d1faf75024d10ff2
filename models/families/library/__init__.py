"""Families whose networks are the transformers library's: a module for each, and the table of them."""

from models.catalog import FamilyName
from models.families.family import Family
from models.families.library import align, chinese_clip, clip, lit, metaclip2, siglip

FAMILIES: dict[FamilyName, Family] = {
    "clip": clip.FAMILY,
    "siglip": siglip.FAMILY,
    "align": align.FAMILY,
    "lit": lit.FAMILY,
    "chinese_clip": chinese_clip.FAMILY,
    "metaclip2": metaclip2.FAMILY,
}
