"""judge.prepare: answers of models asked now, and those that an evaluation kept."""

from pathlib import Path

import orjson
import pytest

from scaletrain import storage
from scaletrain.errors import ConfigError, NotFoundError
from scaletrain.judge.contenders import Contender, contenders
from scaletrain.judge.prepare import answered, from_measurements, from_run, read_prompts
from scaletrain.layout import RunLayout
from scaletrain.model.generate import Sampling, reply
from tiny import tiny_model, tiny_model_folder, tiny_tokenizer

HELLO = ({"role": "user", "content": "Hello!"},)
GREEDY = Sampling(temperature=0, max_new_tokens=6)


def measured(url: str, *replies: str, system_prompt: str | None = None) -> None:
    """What is read of the file that `scaletrain evaluate` keeps of a checkpoint."""
    samples = [{"prompt": prompt, "reply": reply} for prompt, reply in zip(("One?", "Two?"), replies, strict=True)]
    record = {"version": 1, "subject": {"system_prompt": system_prompt}, "samples": samples}
    storage.write_bytes(url, orjson.dumps(record))


def test_every_model_answers_every_prompt(tmp_path: Path) -> None:
    """As it answers in the chat."""
    folders = [tiny_model_folder(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 2))]
    models = contenders([f"one={folders[0]}", str(folders[1])])
    talk = ({"role": "system", "content": "Be brief."}, *HELLO)
    items = answered([HELLO, talk], models, root=str(tmp_path), sampling=GREEDY, device="cpu")
    assert [item.messages for item in items] == [HELLO, talk]
    expected = reply(tiny_model(seed=1), tiny_tokenizer(), HELLO, GREEDY).strip()
    assert items[0].answers["one"] == expected
    assert set(items[1].answers) == {"one", str(folders[1])}


def test_sampled_answers_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    """And differ from prompt to prompt and from seed to seed."""
    folder = str(tiny_model_folder(tmp_path / "a"))
    models = contenders([f"x={folder}", f"y={folder}"])

    def ask(seed: int) -> list[str]:
        sampling = Sampling(temperature=1.0, max_new_tokens=6, seed=seed)
        items = answered([HELLO, HELLO], models, root=str(tmp_path), sampling=sampling, device="cpu")
        assert all(item.answers["x"] == item.answers["y"] for item in items)
        return [item.answers["x"] for item in items]

    assert ask(1) == ask(1)
    assert len({*ask(1), *ask(10)}) == 4


def test_models_have_names() -> None:
    """NAME=MODEL, or the model itself; two of one name, or only one, are refused together."""
    assert contenders(["base=s3://b/m", "runs/x=y"]) == (
        Contender("base", "s3://b/m"),
        Contender("runs/x=y", "runs/x=y"),
    )
    with pytest.raises(ConfigError) as caught:
        contenders(["m"])
    assert "two or more" in str(caught.value)
    with pytest.raises(ConfigError, match="m: is there twice"):
        contenders(["m", "m"])


def test_prompts_are_read_from_text_and_json(tmp_path: Path) -> None:
    """One a line, each once; the system prompt goes before those that have none."""
    (tmp_path / "prompts.txt").write_text("Hello!\n\n  Hello!\nAnd you?\n")
    assert read_prompts(str(tmp_path / "prompts.txt"), system_prompt=None) == [
        HELLO,
        ({"role": "user", "content": "And you?"},),
    ]
    (tmp_path / "prompts.jsonl").write_text(
        '{"prompt": "Hello!"}\n{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]}\n'
    )
    first, second = read_prompts(str(tmp_path / "prompts.jsonl"), system_prompt="Be kind.")
    assert first == ({"role": "system", "content": "Be kind."}, *HELLO)
    assert [message["content"] for message in second] == ["x", "y"]


def test_wrong_prompts_are_all_named(tmp_path: Path) -> None:
    """By line; and a file without any."""
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Hello!"}\n{"text": "x"}\nx\n{"prompt": 3}\n')
    with pytest.raises(ConfigError) as caught:
        read_prompts(str(path), system_prompt=None)
    assert [problem.split("jsonl:")[1][0] for problem in caught.value.problems] == ["2", "3", "4"]
    path.write_text("\n")
    with pytest.raises(ConfigError, match="no prompt"):
        read_prompts(str(path), system_prompt=None)


def test_a_line_separator_within_a_prompt_ends_no_line(tmp_path: Path) -> None:
    """U+2028 may stand in a JSON text as it is."""
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "One\u2028two"}\n', encoding="utf-8")
    [(message,)] = read_prompts(str(tmp_path / "prompts.jsonl"), system_prompt=None)
    assert message["content"] == "One\u2028two"


def test_an_evaluations_answers_are_judged(tmp_path: Path) -> None:
    """The model before training and the newest step that was evaluated, with the system prompt of training."""
    run = RunLayout(str(tmp_path), "run")
    with pytest.raises(NotFoundError, match="scaletrain evaluate"):
        from_run(run)
    names = ("base", "step-00000009", "step-00000005", "against-other-step-00000099")
    for name, answer in zip(names, ("old", "new", "mid", "other"), strict=True):
        measured(storage.join(run.evaluation, f"{name}.json"), answer, "same", system_prompt="Be kind.")
    items = from_run(run)
    assert items[0].answers == {"base": "old", "step-00000009": "new"}
    assert [message["content"] for message in items[0].messages] == ["Be kind.", "One?"]
    assert items[1].pairs == ()


def test_files_that_are_no_evaluations_are_refused(tmp_path: Path) -> None:
    """And those that have no prompt in common."""
    (tmp_path / "x.json").write_text('{"samples": []}')
    with pytest.raises(ConfigError, match="not what `scaletrain evaluate` writes"):
        from_measurements([str(tmp_path / "x.json")] * 2)
    with pytest.raises(ConfigError, match="two or more"):
        from_measurements([str(tmp_path / "x.json")])
    measured(str(tmp_path / "a.json"), "1", "2")
    measured(str(tmp_path / "b.json"), "1", "2", system_prompt="x")
    with pytest.raises(ConfigError, match="no prompt in common"):
        from_measurements([str(tmp_path / "a.json"), str(tmp_path / "b.json")])
