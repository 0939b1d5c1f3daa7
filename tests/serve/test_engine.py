"""serve.engine: many answers at once are those that each request gets alone; what is over frees its place."""

import asyncio
import gc
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from engine_answers import alone, answer, answers, fresh, random_prompt
from scaletrain.errors import EngineFailedError, ModelError, OverloadedError
from scaletrain.model.generate import Sampling, encode_prompt, reply
from scaletrain.serve.engine import BatchEngine
from scaletrain.serve.engine_limits import EngineLimits
from scaletrain.serve.protocol import EngineStatus, Sampled
from tiny import VOCAB_SIZE, tiny_model, tiny_tokenizer

LONG = Sampled(max_tokens=400, temperature=1.0, seed=0)


@pytest.fixture(scope="module")
def engine() -> Iterator[BatchEngine]:
    """An engine that every test of this file may ask."""
    engine = BatchEngine(tiny_model(), tiny_tokenizer(), limits=EngineLimits(max_running=8, cache_tokens=8 * 512))
    yield engine
    asyncio.run(engine.close())


async def settled(engine: BatchEngine, wanted: Callable[[EngineStatus], bool]) -> None:
    """Wait until an engine is as wanted; the test's time limit is the end of patience."""
    while not wanted(engine.status()):
        await asyncio.sleep(0.005)


def idle(status: EngineStatus) -> bool:
    """Nothing is left in the engine."""
    return (status.running, status.waiting, status.cached_tokens) == (0, 0, 0)


def test_a_conversation_is_answered_as_in_the_terminal(engine: BatchEngine) -> None:
    """The greedy answer to a chat prompt is that of model.generate, word for word."""
    messages = [{"role": "user", "content": "Hello! How are you?"}]
    prompt = encode_prompt(tiny_tokenizer(), messages, context=512, max_new_tokens=30)
    expected = reply(tiny_model(), tiny_tokenizer(), messages, Sampling(temperature=0, max_new_tokens=30))
    assert asyncio.run(answer(engine, prompt, max_tokens=30)).text == expected


@pytest.mark.parametrize("limits", [{"max_running": 8, "prefill_tokens": 37}, {"max_running": 20, "cache_tokens": 700}])
def test_fifty_requests_at_once_are_answered_as_alone(limits: dict[str, Any]) -> None:
    """Prompts in chunks, answers that join and leave, and room that is taken back change no word."""
    generator = random.Random(0)
    sizes = [(generator.randint(1, 120), generator.randint(1, 60)) for _ in range(50)]
    requests = [(random_prompt(generator, length), {"max_tokens": most}) for length, most in sizes]

    async def run() -> list[str]:
        async with fresh(**limits) as engine:
            got = await answers(engine, requests)
            assert idle(engine.status())
        return [each.text for each in got]

    model = tiny_model()
    assert asyncio.run(run()) == [
        alone(model, prompt, max_tokens=sampled["max_tokens"]) for prompt, sampled in requests
    ]


def test_a_seed_gives_the_same_answer_beside_others(engine: BatchEngine) -> None:
    """With a seed the text depends on the request alone; without one it is new each time."""
    prompt = list(range(3, 30))
    seeded = {"temperature": 1.0, "top_p": 0.9, "seed": 7, "max_tokens": 40}
    others = [(random_prompt(random.Random(n), 5 + 9 * n), {"temperature": 1.3, "max_tokens": 50}) for n in range(7)]
    first = asyncio.run(answer(engine, prompt, **seeded))
    beside = asyncio.run(answers(engine, [*others, (prompt, seeded)]))[-1]
    assert beside == first
    unseeded = asyncio.run(answers(engine, [(prompt, {**seeded, "seed": seed}) for seed in (None, None, 8)]))
    assert len({first.text, *(each.text for each in unseeded)}) == 4


def test_logprobs_are_the_models_own(engine: BatchEngine) -> None:
    """Whatever the temperature and the penalties, the report is the log-softmax of a plain forward pass."""
    prompt = list(range(40, 60))
    got = asyncio.run(answer(engine, prompt, max_tokens=12, temperature=1.5, seed=1, frequency_penalty=1.0, logprobs=4))
    tokens = [report.token for report in got.logprobs]
    with torch.no_grad():
        logits = tiny_model()(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1)
    for report, row in zip(got.logprobs, expected, strict=True):
        assert report.logprob == pytest.approx(float(row[report.token]), abs=1e-4)
        assert [each.token for each in report.top] == row.topk(4).indices.tolist()
        assert [each.logprob for each in report.top] == pytest.approx(row.topk(4).values.tolist(), abs=1e-4)
    assert b"".join(report.utf8 for report in got.logprobs).decode(errors="replace") == got.text


def test_a_stop_text_ends_the_answer_before_it(engine: BatchEngine) -> None:
    """The stop text may lie across tokens; it is not part of the answer, and no later token is."""
    prompt = list(range(3, 40))
    whole = asyncio.run(answer(engine, prompt, max_tokens=60))
    stop = whole.text[20:25]
    got = asyncio.run(answer(engine, prompt, max_tokens=60, stop=("never there", stop), logprobs=0))
    assert (got.text, got.finish_reason) == (whole.text[: whole.text.find(stop)], "stop")
    assert got.tokens < whole.tokens


def test_an_answer_ends_with_its_tokens_or_with_the_context(engine: BatchEngine) -> None:
    """max_tokens is exact, and a prompt and its answer never pass the context."""
    endless = {"temperature": 1.0, "seed": 3, "stop": ()}
    got = asyncio.run(answer(engine, [5, 6, 7], max_tokens=9, **endless))
    assert (got.tokens, got.finish_reason) == (9, "length")
    got = asyncio.run(answer(engine, random_prompt(random.Random(2), 505), max_tokens=400, **endless))
    assert (got.tokens, got.finish_reason) == (7, "length")


def test_an_end_token_ends_the_answer(engine: BatchEngine) -> None:
    """It counts as a token that was made, and has no text and no report."""
    ends = tiny_tokenizer().eos_token_id
    model = tiny_model()
    model.set_output_embeddings(torch.nn.Linear(48, VOCAB_SIZE))
    with torch.no_grad():
        model.lm_head.bias.zero_()[ends] = 1000

    async def run() -> Any:
        async with fresh(model) as engine:
            return await answer(engine, [5, 6], logprobs=0)

    got = asyncio.run(run())
    assert (got.text, got.tokens, got.logprobs, got.finish_reason) == ("", 1, (), "stop")


def test_who_stops_reading_frees_the_place(engine: BatchEngine) -> None:
    """Closing the iterator ends the generation, of an answer that runs as of one that waits."""

    async def run() -> None:
        async with fresh(max_running=1) as engine:
            reading = engine.stream([5, 6, 7], LONG)
            await anext(reading)
            waiting = asyncio.create_task(answer(engine, [8, 9]))
            given_up = asyncio.create_task(answer(engine, [8, 9]))
            await settled(engine, lambda status: (status.running, status.waiting) == (1, 2))
            given_up.cancel()
            await settled(engine, lambda status: status.waiting == 1)
            await reading.aclose()  # type: ignore[attr-defined]
            assert (await waiting).finish_reason is not None
            assert idle(engine.status())

    asyncio.run(run())


def test_a_loop_that_is_gone_frees_the_place(engine: BatchEngine) -> None:
    """A server's loop that ends with answers under way leaves none in the engine."""

    async def begin() -> None:
        await anext(engine.stream([5, 6, 7], LONG))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    gc.collect()
    asyncio.run(settled(engine, idle))


def test_a_full_queue_is_said_at_once() -> None:
    """The request beyond max_running and max_waiting is refused; the others are not disturbed."""

    async def run() -> None:
        async with fresh(max_running=1, max_waiting=1) as engine:
            there = [asyncio.create_task(answer(engine, [5, 6], max_tokens=50)) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError, match="2 requests"):
                await answer(engine, [7, 8])
            assert [each.finish_reason for each in await asyncio.gather(*there)] == ["length"] * 2

    asyncio.run(run())


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "problem"),
    [
        ([], 5, "no tokens"),
        ([5] * 512, 5, "512 tokens, and the context 512"),
        ([5], 0, "max_tokens=0"),
        ([5, 320], 5, "token 320"),
        ([-1], 5, "token -1"),
    ],
)
def test_a_prompt_that_cannot_be_answered_is_refused(
    prompt: list[int], max_tokens: int, problem: str, engine: BatchEngine
) -> None:
    """With the numbers, before anything is computed."""
    with pytest.raises(ModelError, match=problem):
        asyncio.run(answer(engine, prompt, max_tokens=max_tokens))


def test_a_model_that_fails_ends_every_request_with_an_error() -> None:
    """Those that run, those that wait, and those that come later; none hangs."""
    model = tiny_model()
    steps = 0

    def fail_at_the_tenth(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 10:
            raise RuntimeError("out of luck")

    async def run() -> None:
        async with fresh(model, max_running=2) as engine:
            model.register_forward_pre_hook(fail_at_the_tenth)
            requests = [answer(engine, [5, 6, n], max_tokens=50, temperature=1.0, seed=n) for n in range(4)]
            results = await asyncio.gather(*requests, return_exceptions=True)
            assert [type(each) for each in results] == [EngineFailedError] * 4
            assert "out of luck" in str(results[0])
            with pytest.raises(EngineFailedError, match="out of luck"):
                await answer(engine, [5])

    asyncio.run(run())


def test_output_that_is_no_number_ends_one_request() -> None:
    """A request on which the model breaks down has an error; those beside it go on."""
    model = tiny_model(tie_word_embeddings=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[70] = float("nan")

    async def run() -> None:
        async with fresh(model) as engine:
            broken, good = await asyncio.gather(
                answer(engine, [5, 70]), answer(engine, [5, 6], max_tokens=3), return_exceptions=True
            )
            assert isinstance(broken, EngineFailedError)
            assert not isinstance(good, BaseException)

    asyncio.run(run())


def test_close_leaves_nothing_behind() -> None:
    """Who still waits for an answer hears of it, the thread ends, and the engine refuses what comes later."""

    async def run() -> None:
        engine = BatchEngine(tiny_model(), tiny_tokenizer())
        reading = engine.stream([5, 6, 7], LONG)
        await anext(reading)
        await engine.close()
        with pytest.raises(EngineFailedError, match="closed"):
            _ = [piece async for piece in reading]
        with pytest.raises(EngineFailedError, match="closed"):
            await answer(engine, [5])
        await engine.close()

    before = set(threading.enumerate())
    asyncio.run(run())
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "scaletrain-engine"]
