"""Counts the bytes of tensors while a piece of code runs: what is there now, and the most there was."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """As a context: bytes of the tensors that operators make meanwhile and that are still held by someone.

    `not_counted` are tensors that were there before, of which operators make views.
    """

    def __init__(self, not_counted: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._before = {StorageWeakRef(each.untyped_storage()) for each in not_counted}
        self._made: dict[StorageWeakRef, int] = {}
        self.most = 0

    @property
    def now(self) -> int:
        self._made = {storage: size for storage, size in self._made.items() if not storage.expired()}
        return sum(self._made.values())

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        for each in tree_leaves(found):
            if isinstance(each, torch.Tensor):
                storage = StorageWeakRef(each.untyped_storage())
                if storage not in self._before:
                    self._made[storage] = each.untyped_storage().nbytes()
        self.most = max(self.most, self.now)
        return found
