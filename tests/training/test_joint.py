"""ITC, ITM and LM together."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from training.data import JointTexts, Texts
from training.joint import Joined, matching_loss


class Matching:
    """Its pictures are numbers, and what is true of one is its number. `is_right`: else it says the reverse."""

    def __init__(self, is_right: bool) -> None:
        self.is_right = is_right

    def look_at(self, seen: Tensor) -> Any:
        return seen

    def match(self, source: Any, lines: Texts) -> Tensor:
        pictures = source.repeat_interleave(len(lines.ids) // len(source))
        says = (lines.ids[:, 0] == pictures) == self.is_right
        return torch.where(says[:, None], torch.tensor([-20.0, 20.0]), torch.tensor([20.0, -20.0]))


def lines(*numbers: int) -> Texts:
    ids = torch.tensor(numbers)[:, None]
    return Texts(ids, torch.ones_like(ids, dtype=torch.bool))


@pytest.mark.parametrize("num_spoilt", [1, 2])
def test_itm_learns_which_lines_are_true(num_spoilt: int) -> None:
    spoilt = [lines(10 * column + 10, 10 * column + 11, 10 * column + 12) for column in range(num_spoilt)]
    texts = JointTexts(lines(0, 0, 0), lines(0, 1, 2), lines(50), torch.eye(3, 4, dtype=torch.bool), spoilt)
    seen, similarity = torch.arange(3), torch.zeros(3, 4)
    right, wrong = (
        float(matching_loss(cast("Joined", Matching(is_right)), seen, texts, similarity)) for is_right in (True, False)
    )
    assert right < 0.01
    assert wrong > 30
