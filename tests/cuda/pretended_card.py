# SPDX-License-Identifier: Apache-2.0
"""A card that is not there: tensors which were made on it, or sent to it, say so and refuse to meet those of the host.

Everything lies in host memory and is computed there; only the device is pretended. Within the mode an operation
raises wherever it would on a card, and in some cases where torch would copy behind one's back:
  * tensors of the card and of the host (of more than one value) in one operation, `copy_` and `to` aside;
  * `numpy()` of a tensor on the card; a generator of the host that fills a tensor there.
What is fetched with `non_blocking`, or sent on a stream of its own, reads NONSENSE until an event that was recorded
after it has been waited for.
A backward pass runs where its forward pass did, so nothing is checked inside one, and all that it makes is the card's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode

CARD = torch.device("cuda", 0)
NONSENSE = 85


class MixedDevicesError(AssertionError):
    """What a card would have refused."""


def on_card(tensor: Tensor) -> bool:
    """Whether a tensor is pretended to be on the card."""
    return getattr(tensor, "pretended", False)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def is_card(value: Any) -> bool | None:
    """Whether something names the card; None where it names no device."""
    if isinstance(value, torch.device):
        return value.type == "cuda"
    return value.startswith("cuda") if isinstance(value, str) else None


class PretendedCard(TorchFunctionMode):
    """Within it, `cuda` is a device."""

    def __init__(self) -> None:
        super().__init__()
        self._backwards = False
        self.carried = 0
        """Tensors taken from the host to the card."""
        self.fetched = 0
        """Tensors taken back."""
        self.underway: list[tuple[Tensor, Tensor]] = []
        """Where values will be, and the values: copied without waiting, and not yet waited for."""
        self.aside = False
        """Whether copies to the card are made on a stream beside that of the work."""

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = function.__name__
        if name == "__get__":
            return self._property(function, args)
        if name in ("to", "cpu", "cuda"):
            return self._moved(name, *args, **kwargs)
        if name == "backward":
            return self._backward(args[0])
        target = is_card(kwargs.get("device"))
        given = list(tensors_in((args, kwargs)))
        if target is None:
            target = self._backwards or any(map(on_card, given))
        elif target:
            kwargs = kwargs | {"device": torch.device("cpu")}
        self._check(name, given, target, kwargs)
        return self._marked(function(*args, **kwargs), target)

    def _check(self, name: str, given: list[Tensor], target: bool, kwargs: dict) -> None:
        if self._backwards:
            return
        if target and kwargs.get("generator") is not None:
            raise MixedDevicesError(f"{name}: the generator is the host's, the tensor on the card")
        if target and name in ("numpy", "__array__", "pin_memory"):
            raise MixedDevicesError(f"{name}: the tensor is on the card")
        strangers = [one for one in given if not on_card(one) and one.dim()]
        in_place = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i") or name == "__setitem__"
        if any(map(on_card, given)) and name not in ("copy_", "__set__"):
            if in_place and not on_card(given[0]):
                raise MixedDevicesError(f"{name}: writes values of the card into a tensor of the host")
            if strangers:
                shapes = ", ".join(str(tuple(one.shape)) for one in strangers)
                raise MixedDevicesError(f"{name}: tensors on the card meet tensors of the host of shape {shapes}")

    def _marked(self, result: Any, card: bool) -> Any:
        if card:
            for one in tensors_in(result):
                one.pretended = True
        return result

    def _property(self, function: Callable, args: tuple) -> Any:
        what, tensor = function.__self__.__name__, args[0]
        card = self._backwards or on_card(tensor)
        if what == "device" and card:
            return CARD
        if what in ("is_cuda", "is_cpu") and card:
            return what == "is_cuda"
        return self._marked(function(*args), on_card(tensor))

    def _moved(self, name: str, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        target = {"cpu": False, "cuda": True}.get(name)
        for value in (*args, *kwargs.values()):
            named = on_card(value) if isinstance(value, Tensor) else is_card(value)
            target = named if named is not None else target
        there = self._backwards or on_card(tensor)
        target = there if target is None else target
        if name != "to":
            args, kwargs = (), {}
        host = torch.device("cpu")
        args = tuple(host if is_card(value) else value for value in args)
        kwargs = {key: host if is_card(value) else value for key, value in kwargs.items()}
        moved = tensor.to(*args, **kwargs) if args or kwargs else tensor
        if target != there:
            self.carried, self.fetched = self.carried + target, self.fetched + there
            moved = moved.clone() if moved is tensor else moved
        if target != there and kwargs.get("non_blocking") and (there or self.aside):
            self.underway.append((moved, moved.clone()))
            moved.fill_(NONSENSE)
        return self._marked(moved, target)

    def _backward(self, loss: Tensor) -> None:
        self._backwards = True
        try:
            one = torch.ones_like(loss)
            with self:  # a mode is off while it answers, but the backward pass is to run in it
                _engine_run_backward((loss,), (one,), False, False, (), allow_unreachable=True, accumulate_grad=True)
        finally:
            self._backwards = False


class Event:
    """Of torch.cuda: what was copied before it was recorded is there once it was waited for."""

    card: PretendedCard

    def record(self) -> None:
        """Remember what is under way."""
        self._before = list(self.card.underway)

    def synchronize(self) -> None:
        """Let it arrive."""
        for place, values in self._before:
            place.copy_(values)
        self.card.underway = [pair for pair in self.card.underway if not any(pair is one for one in self._before)]


class Stream:
    """Of torch.cuda: works in order at once, but waits for what other streams copy only where it is told to."""

    cuda_stream = 0

    def __init__(self, *_: Any) -> None:
        pass

    def wait_event(self, event: Event) -> None:
        """For the card it is as for the host."""
        event.synchronize()


def pretend(monkeypatch: Any) -> PretendedCard:
    """The mode, and the parts of torch.cuda that the product asks beside tensors."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(Tensor, "record_stream", lambda *_: None)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)  # worker threads are not in the mode
    card = PretendedCard()

    @contextmanager
    def stream(_: Stream) -> Iterator[None]:
        card.aside = True
        yield
        card.aside = False

    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "Event", type("Event", (Event,), {"card": card}))
    return card
