# SPDX-License-Identifier: Apache-2.0
"""The one container of everything that has a row per Gaussian, and the one operation that changes N.

Parameters, pending gradients, Adam moments, statistics and labels can only be edited together, so no
array can ever belong to other Gaussians than its neighbours do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from diff_gaussian_rasterization.rows import gather_append
from torch import Tensor


@dataclass(frozen=True)
class Column:
    """What a new row holds when nobody says otherwise."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    fill: float


class Rows:
    """Named columns [N, ...] of equal length, all on one device; whatever is added is taken there."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._data: dict[str, Tensor] = {}
        self._columns: dict[str, Column] = {}
        self.changes = 0
        """How often rows came or went."""

    def add(
        self,
        name: str,
        data: Tensor | None = None,
        *,
        shape: tuple[int, ...] = (),
        dtype: torch.dtype = torch.float32,
        fill: float = 0,
        requires_grad: bool = False,
    ) -> None:
        """Add a column, with `data` [N, *shape] or filled with `fill`.

        Raises:
            ValueError: `data` has another number of rows than the columns that are already there.
        """
        if data is None:
            data = torch.full((len(self), *shape), fill, dtype=dtype, device=self.device)
        if self._data and data.shape[0] != len(self):
            raise ValueError(f"column {name} has {data.shape[0]} rows, the others have {len(self)}")
        self._columns[name] = Column(tuple(data.shape[1:]), data.dtype, fill)
        self._data[name] = data.detach().to(self.device).contiguous().requires_grad_(requires_grad)

    def __len__(self) -> int:
        return next(iter(self._data.values())).shape[0] if self._data else 0

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __getitem__(self, name: str) -> Tensor:
        return self._data[name]

    @torch.no_grad()
    def gather_append(self, keep: Tensor, fresh: Mapping[str, Tensor] | None = None) -> None:
        """Replace the rows by those of index `keep`, in that order, followed by the `fresh` ones.

        Args:
            keep: Row indices, int64 [M]; an index may occur more than once.
            fresh: New rows by column, all [F, ...]; a column that is absent gets its fill value.
                Pending gradients of new rows are zero, those of kept rows go with them.
        """
        fresh = fresh or {}
        if unknown := fresh.keys() - self._data.keys():
            raise KeyError(f"no such column: {', '.join(sorted(unknown))}")
        self.changes += 1
        keep = keep.to(self.device)
        counts = {len(rows) for rows in fresh.values()} or {0}
        if len(counts) > 1:
            raise ValueError(f"fresh columns differ in length: {sorted(counts)}")
        count = counts.pop()
        old = {name: data.detach() for name, data in self._data.items()}
        old |= {f"{name}.grad": data.grad for name, data in self._data.items() if data.grad is not None}
        new: dict[str, Tensor | float] = {name: column.fill for name, column in self._columns.items()}
        new |= {name: rows.detach().to(self.device, old[name].dtype) for name, rows in fresh.items()}
        moved = gather_append([*old.values()], keep, [new.get(name, 0.0) for name in old], count)
        columns = dict(zip(old, moved, strict=True))
        for name, data in self._data.items():
            self._data[name] = columns[name].requires_grad_(data.requires_grad)
            self._data[name].grad = columns.get(f"{name}.grad")

    def state_dict(self) -> dict[str, Tensor]:
        """All columns and pending gradients as plain tensors in host memory."""
        gradients = {f"{name}.grad": d.grad for name, d in self._data.items() if d.grad is not None}
        return {name: data.detach().to("cpu", copy=True) for name, data in (self._data | gradients).items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the columns that `state_dict` gave; names must be the same."""
        names = {name for name in state if not name.endswith(".grad")}
        if names != set(self._data):
            raise ValueError(f"columns differ: {', '.join(sorted(names ^ set(self._data)))}")
        for name in names:
            data = state[name].to(self.device, copy=True).requires_grad_(self._data[name].requires_grad)
            pending = state.get(f"{name}.grad")
            data.grad = None if pending is None else pending.to(self.device, copy=True)
            self._data[name] = data
