# SPDX-License-Identifier: Apache-2.0
"""Whatever has a row per Gaussian moves with it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scene.rows import Rows


def numbered(count: int) -> Rows:
    """Rows whose every column holds the row's own number."""
    rows = Rows()
    number = torch.arange(count, dtype=torch.float32)
    rows.add("a", number[:, None].expand(count, 3), requires_grad=True)
    rows.add("b", number)
    rows.add("label", number.to(torch.uint8))
    rows["a"].grad = number[:, None].expand(count, 3).clone()
    return rows


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=20), st.integers(0, 5))
def test_all_columns_and_pending_gradients_follow_their_row(keep, fresh):
    rows = numbered(10)
    new = torch.full((fresh, 3), 77.0)
    rows.gather_append(torch.tensor(keep, dtype=torch.int64), {"a": new})
    want = torch.tensor(keep, dtype=torch.float32)
    assert len(rows) == len(keep) + fresh
    assert torch.equal(rows["a"][: len(keep), 1].detach(), want)
    assert torch.equal(rows["b"][: len(keep)], want)
    assert torch.equal(rows["label"][: len(keep)].float(), want)
    assert torch.equal(rows["a"].grad[: len(keep), 2], want)
    assert torch.equal(rows["a"].grad[len(keep) :], torch.zeros(fresh, 3))
    assert rows["a"].requires_grad and rows["a"].is_leaf


def test_columns_that_fresh_rows_do_not_name_get_their_fill():
    rows = Rows()
    rows.add("a", torch.zeros(2))
    rows.add("reach", fill=1.0)
    rows["reach"].fill_(5)
    rows.gather_append(torch.tensor([1]), {"a": torch.ones(2)})
    assert rows["reach"].tolist() == [5, 1, 1]


def test_fresh_rows_of_unequal_length_are_refused():
    rows = numbered(3)
    with pytest.raises(ValueError, match="differ in length"):
        rows.gather_append(torch.arange(3), {"a": torch.zeros(2, 3), "b": torch.zeros(1)})


def test_a_column_of_another_length_is_refused():
    with pytest.raises(ValueError, match="has 4 rows, the others have 3"):
        numbered(3).add("c", torch.zeros(4))


def test_an_unknown_column_is_named():
    with pytest.raises(KeyError, match="colour"):
        numbered(3).gather_append(torch.arange(3), {"colour": torch.zeros(1)})


def test_state_survives_a_round_trip_with_its_pending_gradient():
    rows, other = numbered(4), numbered(4)
    rows.gather_append(torch.tensor([2, 0]))
    other.load_state_dict(rows.state_dict())
    assert torch.equal(other["b"], rows["b"])
    assert torch.equal(other["a"].grad, rows["a"].grad)
    assert other["a"].requires_grad


def test_all_rows_can_go():
    rows = numbered(3)
    rows.gather_append(torch.zeros(0, dtype=torch.int64))
    assert len(rows) == 0 and rows["a"].shape == (0, 3)
