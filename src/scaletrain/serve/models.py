"""The models that are served, by name, and how one is replaced by a newer one while requests run.

A request leases the model it begins with. When a newer one takes its place, new requests go to that, and the old engine
is closed when the last of its leases ends.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scaletrain.errors import ModelError, ScaletrainError
from scaletrain.log import get_logger
from scaletrain.model.prompt import encode_messages
from scaletrain.serve.api_errors import ApiError, unknown_model
from scaletrain.serve.protocol import Engine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = get_logger(__name__)


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: its name here, what the user called it, and its newest version when it was loaded.

    `adapters`: LoRA adapters (PEFT folders or URLs) by the names under which the adapted model is served.
    """

    name: str
    source: str
    adapters: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


class ServedModel:
    """One model with its tokenizer, and an engine for it as it is and with each adapter, by the name it is served as.

    `close_engine` ends what they share; `heals`: it gets over a failure by itself. The tokenizer has a thread of its
    own, since it is not safe in two.
    """

    def __init__(
        self,
        origin: Origin,
        engines: Mapping[str, Engine],
        tokenizer: "PreTrainedTokenizerBase",
        *,
        close_engine: Callable[[], Awaitable[None]],
        heals: bool = False,
    ) -> None:
        self.origin = origin
        self.engines = engines
        self.created = int(time.time())
        self._close_engine = close_engine
        self._heals = heals
        self._tokenizer = tokenizer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._has_failed = False
        self._leases = 0
        self._unused = asyncio.Event()
        self._unused.set()

    async def chat_tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The prompt of a conversation, rendered as in training; raises ApiError where the template refuses it."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, encode_messages, self._tokenizer, messages)
        except ModelError as exc:
            raise ApiError(400, str(exc), param="messages", code="invalid_value") from exc

    async def text_tokens(self, prompt: str | list[int]) -> list[int]:
        """The tokens of a completion's prompt, as the tokenizer makes them; special tokens mean what they are."""
        if isinstance(prompt, list):
            if unknown := [token for token in prompt if token >= len(self._tokenizer)]:
                raise ApiError(
                    400, f"the model has no token {unknown[0]}; it has {len(self._tokenizer)}", param="prompt"
                )
            return prompt

        def tokenise() -> list[int]:
            tokens: list[int] = self._tokenizer(prompt)["input_ids"]
            return tokens

        return await asyncio.get_running_loop().run_in_executor(self._thread, tokenise)

    @property
    def has_failed(self) -> bool:
        """Whether its engine will answer no more, and has to be loaded again."""
        return self._has_failed

    def note_failure(self) -> None:
        """Take note that its engine failed; one whose engines are replaced by others (`heals`) is loaded by nobody."""
        self._has_failed = not self._heals

    @asynccontextmanager
    async def lease(self) -> AsyncIterator["ServedModel"]:
        """Keep the engine open meanwhile."""
        self._leases += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._leases -= 1
            if not self._leases:
                self._unused.set()

    async def close(self, *, when_unused: bool) -> None:
        """Close the engine, after the last lease where so asked."""
        if when_unused:
            await self._unused.wait()
        await self._close_engine()
        self._thread.shutdown(wait=False)


@dataclass(frozen=True)
class Offer:
    """What a client may name: a model, or a model with one of its adapters."""

    name: str
    model: ServedModel

    @property
    def engine(self) -> Engine:
        return self.model.engines[self.name]


@dataclass
class Models:
    """All served models; the first is the one that a request without a name gets.

    `load` makes a model from its origin; `newest` says what version its source has now, None where it has none to be
    read at the moment.
    """

    load: Callable[[Origin], Awaitable[ServedModel]]
    newest: Callable[[str], Awaitable[str | None]]
    _served: list[ServedModel] = field(default_factory=list)
    _retiring: set[asyncio.Task[None]] = field(default_factory=set)
    _reloading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def add(self, origin: Origin) -> None:
        """Load the newest version of a model and serve it."""
        log.info("%s: loading %s", origin.name, origin.source)
        version = await self.newest(origin.source)
        self._served.append(await self.load(replace(origin, version=version or "")))

    def all(self) -> list[Offer]:
        """Everything that a client may name."""
        return [Offer(name, model) for model in self._served for name in model.engines]

    def find(self, name: str | None) -> Offer:
        """What a name stands for; raises ApiError 404 that lists those that there are."""
        offers = self.all()
        found = next((offer for offer in offers if name in (None, offer.name)), None)
        if found is None:
            raise unknown_model(str(name), [offer.name for offer in offers])
        return found

    def failed(self) -> list[str]:
        """The models whose engines will answer no more."""
        return [model.origin.name for model in self._served if model.has_failed]

    async def reload(self) -> list[str]:
        """Replace every model whose source has a newer version, or whose engine failed; returns their names.

        Where that cannot be done the old one stays.
        """
        replaced = []
        async with self._reloading:
            for place, old in enumerate(self._served):
                name = old.origin.name
                try:
                    version = await self.newest(old.origin.source)
                    if version is None or (version == old.origin.version and not old.has_failed):
                        continue
                    log.info("%s: %s; loading it", name, "failed" if old.has_failed else "a newer version is there")
                    self._served[place] = await self.load(replace(old.origin, version=version))
                except ScaletrainError as error:
                    log.warning("%s: cannot be replaced by its newest version, and stays as it is: %s", name, error)
                    continue
                except Exception:  # whatever a model or a store raises: the watch goes on, and so does the old model
                    log.exception("%s: cannot be replaced by its newest version, and stays as it is", name)
                    continue
                self._retire(old)
                replaced.append(name)
                log.info("%s: the new one answers from now on", name)
        return replaced

    async def watch(self, *, every_s: float) -> None:
        """Reload for ever."""
        while True:
            await asyncio.sleep(every_s)
            await self.reload()

    async def close(self) -> None:
        """Close every engine, whatever runs in it."""
        for retiring in self._retiring:
            retiring.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for model in self._served:
            await model.close(when_unused=False)

    def _retire(self, model: ServedModel) -> None:
        task = asyncio.create_task(model.close(when_unused=True))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
