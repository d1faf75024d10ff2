"""Families whose networks are the transformers library's: a module for each, and the table of them."""

from models.catalog import FamilyName
from models.families.family import Family
from models.families.library import align, chinese_clip, clip, clipseg, lit, metaclip2, owl, siglip, vilt

FAMILIES: dict[FamilyName, Family] = {
    "clip": clip.FAMILY,
    "siglip": siglip.FAMILY,
    "align": align.FAMILY,
    "lit": lit.FAMILY,
    "chinese_clip": chinese_clip.FAMILY,
    "metaclip2": metaclip2.FAMILY,
    "clipseg": clipseg.FAMILY,
    "owlvit": owl.OWLVIT,
    "owlv2": owl.OWLV2,
    "vilt": vilt.VILT,
    "vilt-nlvr2": vilt.NLVR2,
}
