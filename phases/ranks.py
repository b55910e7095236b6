# SPDX-License-Identifier: Apache-2.0
"""One training by several processes: `torchrun --nproc_per_node=R train.py ... --views_per_step K`.

Every process (rank) holds all rows. The views of a step are dealt out in turn; what they add to the rows, gradients and
statistics, is summed in the order of the views, so that no bit of the sums depends on the number of processes. Rank 0
alone runs the hooks of the phases and writes; what these have changed the others take over (docs/several-cards.md).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from arguments import Config
from scene.gaussian_model import PARAMETERS
from scene.rows import Rows
from utils.errors import NothingToDo, UserError, machine_failure
from utils.run_dir import RunDir
from utils.signals import StopRequest

if TYPE_CHECKING:
    from .state import TrainingState

ADDED_TO = ("grad_sum", "abs_grad_sum", "seen")
"""Columns that every view adds to; so does it to the gradients of the parameters."""
PATIENCE = timedelta(hours=2)
"""How long the others wait for one: an inspection by a large model takes its time. A death is noticed at once."""

View = TypeVar("View")
Losses = Mapping[str, float]


class Remembers(Protocol):
    """What can be carried to other processes."""

    def state_dict(self) -> Any:
        """Plain data and tensors."""

    def load_state_dict(self, saved: Any) -> None:
        """Take over what `state_dict` gave."""


class OneProcess:
    """There are no others."""

    first = True

    def check(self, config: Config, device: torch.device) -> None:
        """UserError where settings or device do not suit the number of processes."""

    def threads(self, wanted: int) -> int:
        """Threads of this process's native code, 0 for all cores."""
        return wanted

    def open_run(self, config: Config) -> RunDir | Onlooker:
        """The run's folder as this process may use it."""
        return RunDir.open(config)

    def mine(self, views: Sequence[View]) -> Sequence[View]:
        """Which of the views of a step are this process's."""
        return views

    def each(self, views: Sequence[View], rows: Rows) -> Iterable[View]:
        """This process's views one by one; after the last one, `rows` hold what all processes' views have added."""
        return views

    def mean(self, losses: Sequence[Losses], stop: StopRequest) -> Losses:
        """Means of the terms over all views of a step; the processes learn too who asks to stop."""
        if len(losses) == 1:
            return losses[0]  # which a card may still be computing
        return {name: fmean(view[name] for view in losses) for name in losses[0]}

    def lead(self, hook: Callable[[TrainingState], None], state: TrainingState, phase: Remembers) -> None:
        """Let the first process run a hook of a phase, and the others have what it changed."""
        hook(state)

    def share(self, *parts: Remembers) -> None:
        """Give the others what the first process has."""


class Onlooker:
    """The run's folder for those who do not write: Ctrl-C is heard, that is all."""

    def __init__(self) -> None:
        self.stop = StopRequest(alone=False, quiet=True)

    def __enter__(self) -> Self:
        self.stop.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop.__exit__(*error)

    def say(self, text: str) -> None:
        """Only the first process speaks."""

    def seen(self, l1: Tensor) -> None:
        """Nor are there curves of its own."""


class Several(OneProcess):
    """This process is one of a group that has met."""

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.first = self.rank == 0
        self.stopping = False
        self._neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))

    def check(self, config: Config, device: torch.device) -> None:
        """Each process must have as many views of a step, and all a card of their own or none."""
        views, cards = config.optim.views_per_step, torch.cuda.device_count()
        if views % self.count:
            more = self.count * (views // self.count + 1)
            raise UserError(f"--views_per_step {views}: {self.count} processes share them evenly; give {more}")
        on_cards = torch.tensor(float(device.type == "cuda"))
        _reach(dist.all_reduce, on_cards)
        if on_cards not in (0, self.count) or (on_cards and self._neighbours > cards):
            raise UserError(
                f"--backend {config.run.backend}: {self.count} processes, but {int(on_cards)} can use a card "
                f"({cards} here); start one for each card, or give --backend cpu"
            )

    def threads(self, wanted: int) -> int:
        """An even share of the machine's cores unless a number is wanted."""
        return wanted or max(1, len(os.sched_getaffinity(0)) // self._neighbours)

    def open_run(self, config: Config) -> RunDir | Onlooker:
        """Only the first process writes, and holds the lock."""
        if not self.first:
            return Onlooker()
        run = RunDir.open(config)
        run.stop.alone = False
        return run

    def mine(self, views: Sequence[View]) -> Sequence[View]:
        """Every `count`-th, so that those of one round stand side by side."""
        return views[self.rank :: self.count]

    def each(self, views: Sequence[View], rows: Rows) -> Iterator[View]:
        """In a round every process draws one view; then each sums one part of the rows, in the order of the views."""
        touched: set[str] = set()
        total = _taken(rows, touched, self.count).view(self.count, -1)[self.rank].clone()
        for view in self.mine(views):
            yield view
            own = _taken(rows, touched, self.count)
            parts = torch.empty_like(own)
            _reach(dist.all_to_all_single, parts, own)
            for part in parts.view(self.count, -1):
                total += part
        totals = [torch.empty_like(total) for _ in range(self.count)]
        _reach(dist.all_gather, totals, total)
        _put_back(rows, touched, torch.cat(totals))

    def mean(self, losses: Sequence[Losses], stop: StopRequest) -> Losses:
        """Whoever asks to stop asks for all, after the same step."""
        names = [*losses[0]]
        own = torch.tensor([[*(view[name] for name in names), stop.heard] for view in losses], dtype=torch.float64)
        everyone = [torch.empty_like(own) for _ in range(self.count)]
        _reach(dist.all_gather, everyone, own)
        self.stopping = stop.asked = any(one[-1, -1] > 0 for one in everyone)
        in_order = torch.stack(everyone, 1).flatten(0, 1)[:, :-1].tolist()
        return super().mean([dict(zip(names, view, strict=True)) for view in in_order], stop)

    def lead(self, hook: Callable[[TrainingState], None], state: TrainingState, phase: Remembers) -> None:
        """What the hook draws at random or changes in the rows or in its phase is noticed; then all is shared."""
        changed = torch.zeros(1)
        if self.first:
            remembered = phase.state_dict()  # held, so that no new tensor takes the identity of an old one
            before = _stamp(state), _marks(remembered)
            hook(state)
            changed += before != (_stamp(state), _marks(phase.state_dict()))
        _reach(dist.broadcast, changed, 0)
        if changed:
            self.share(state, phase)

    def share(self, *parts: Remembers) -> None:
        """As a checkpoint would carry it, through host memory."""
        buffer = io.BytesIO()
        if self.first:
            torch.save([part.state_dict() for part in parts], buffer)
        size = torch.tensor(buffer.tell())
        _reach(dist.broadcast, size, 0)
        content = torch.frombuffer(buffer.getbuffer() if self.first else bytearray(int(size)), dtype=torch.uint8)
        _reach(dist.broadcast, content, 0)
        if not self.first:
            everything = torch.load(io.BytesIO(content.numpy()), map_location="cpu", weights_only=True)
            for part, saved in zip(parts, everything, strict=True):
                part.load_state_dict(saved)


@contextmanager
def joined() -> Iterator[OneProcess]:
    """This process among those that torchrun has started; what ends one of them ends all, and is told once."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield OneProcess()
        return
    store = _met()
    ranks = Several()
    try:
        yield ranks
        _reach(dist.all_reduce, torch.zeros(1))  # the first process may still be writing
        dist.destroy_process_group()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and ranks.stopping:
            with suppress(_LostError):
                _reach(dist.all_reduce, torch.zeros(1))  # its last checkpoint
        _leave_word(store, ranks.rank, error)
        raise


def _met() -> dist.Store:
    try:
        store, rank, count = next(dist.rendezvous("env://", timeout=timedelta(minutes=5)))
        backend = "gloo"
        if torch.cuda.is_available() and dist.is_nccl_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}: the processes do not find each other ({error}); "
            "start them with torchrun, or unset it"
        ) from error
    return store


class _LostError(UserError):
    """Another process cannot be reached."""


def _reach(operation: Callable[..., Any], *args: Any) -> None:
    """Take part in something that all processes do."""
    try:
        operation(*args)
    except RuntimeError as error:
        if machine_failure(error) is not None:
            raise
        raise _LostError(
            "another process of this training has ended without a word; the last checkpoint is intact, "
            "go on with --resume"
        ) from error


def _leave_word(store: dist.Store, rank: int, error: BaseException) -> None:
    """Tell the others how this ends; SystemExit, which is silent, where another was faster and has told why."""
    codes = {KeyboardInterrupt: 130, NothingToDo: 0, SystemExit: getattr(error, "code", None) or 0, UserError: 2}
    code = next((code for kind, code in codes.items() if isinstance(error, kind)), 2 if machine_failure(error) else 1)
    word = f"{rank} {code}"
    try:
        told = store.compare_set("end", "", word).decode()
    except RuntimeError:  # it has gone with the first process
        return
    if told != word:
        raise SystemExit(int(told.split()[1])) from error


# -- what views add to the rows, as one tensor -----------------------------------------------------------------


def _taken(rows: Rows, touched: set[str], parts: int) -> Tensor:
    """Gradients and statistics in one tensor whose length `parts` divides; the rows' own begin anew.

    What has no gradient is -0.0, to which any number can be added without a change, 0.0 included.
    """
    pieces = []
    for name in PARAMETERS:
        gradient, rows[name].grad = rows[name].grad, None
        if gradient is None:
            gradient = torch.full_like(rows[name], -0.0, requires_grad=False)
        else:
            touched.add(name)
        pieces.append(gradient.flatten())
    for name in ADDED_TO:
        pieces.append(rows[name].clone())
        rows[name].zero_()
    rest = parts - sum(map(len, pieces)) % parts  # even without a Gaussian there is something to send
    return torch.cat([*pieces, pieces[0].new_zeros(rest)])


def _put_back(rows: Rows, touched: set[str], values: Tensor) -> None:
    """The opposite of `_taken`."""
    for name in (*PARAMETERS, *ADDED_TO):
        mine, values = values[: rows[name].numel()].view_as(rows[name]), values[rows[name].numel() :]
        if name in ADDED_TO:
            rows[name].copy_(mine)
        elif name in touched:
            rows[name].grad = mine.clone()


# -- what a hook has changed -----------------------------------------------------------------------------------


def _stamp(state: TrainingState) -> tuple[Any, ...]:
    """Differs after rows came, went or were changed by torch, and after a random number."""
    rows = state.gaussians.rows
    columns = [(rows[name]._version, rows[name].grad is None) for name in rows]
    return rows.changes, columns, state.generator.get_state().numpy().tobytes()


def _marks(value: Any) -> Any:
    """Plain data with identity and version in the place of each tensor."""
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, dict):
        return {key: _marks(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_marks(one) for one in value]
    return value
