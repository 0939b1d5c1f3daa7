"""Benchmark tasks of our own through lm-eval, without a hub."""

from pathlib import Path

import orjson
import pytest

from scaletrain.errors import ConfigError
from scaletrain.evaluate.tasks import check_tasks, run_tasks
from tiny import tiny_model, tiny_tokenizer

TASK = """
task: capitals
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task of three questions in a file, with its data beside it."""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = [{"question": f"What comes after {n}?", "choices": [str(n + 1), str(n)], "answer": 0} for n in range(3)]
    (tmp_path / "capitals.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    path = tmp_path / "capitals.yaml"
    path.write_text(TASK.format(data=tmp_path / "capitals.jsonl"))
    return str(path)


def test_a_task_file_is_scored_under_the_chat_template(task: str) -> None:
    """Accuracy comes with its error and number of examples, and is that of the likelier continuation."""
    model, words = tiny_model(), tiny_tokenizer()
    (score,) = run_tasks(model, words, (task,), batch_size=2, system_prompt="Be brief.")
    assert (score.task, score.metric, score.examples) == ("capitals", "acc", 3)
    assert score.value == pytest.approx(_accuracy(model, words, system="Be brief."))
    assert score.standard_error is not None


def _accuracy(model: object, words: object, *, system: str) -> float:
    """How often the right answer is likelier than the wrong one after the rendered question."""
    import torch

    right = 0
    for n in range(3):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": f"What comes after {n}?"}]
        prompt = words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)  # type: ignore[attr-defined]
        likelihoods = []
        for choice in (str(n + 1), str(n)):
            start = len(words(prompt)["input_ids"])  # type: ignore[operator]
            ids = torch.tensor([words(prompt + choice)["input_ids"]])  # type: ignore[operator]
            with torch.no_grad():
                log_probs = model(input_ids=ids).logits[0].log_softmax(-1)  # type: ignore[operator]
            likelihoods.append(sum(log_probs[place - 1, ids[0, place]].item() for place in range(start, ids.shape[1])))
        right += likelihoods[0] > likelihoods[1]
    return right / 3


def test_what_cannot_be_run_is_named(task: str, tmp_path: Path) -> None:
    """A file that is not there, a name that lm-eval does not know, and data that are gone."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: there is no such file"):
        check_tasks(("nowhere.yaml", task))
    (tmp_path / "capitals.jsonl").unlink()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        run_tasks(tiny_model(), tiny_tokenizer(), (task,), batch_size=1, system_prompt=None)
