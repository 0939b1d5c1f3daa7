"""A peer of benchmarks/preparation.py: datatrove's reader, a filter with the cleaning, and its DocumentTokenizer.

    python benchmarks/peers/preparation_datatrove.py CONVERSATIONS.jsonl WARM_UP.jsonl MODEL FOLDER

Rows are {"id", "messages"}; MODEL is a folder with a tokenizer and its chat template. Prints a line of JSON: tokens
written, wall and CPU seconds, without what the same takes over WARM_UP.jsonl first. One process; documents are written
one behind the other and shuffled, which is datatrove's way of packing. No mask is made of what is to be learned.
"""

import json
import sys
from pathlib import Path
from typing import Any

import preparation_steps as steps
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer


class CleanAndRender(BaseFilter):
    """Leave out what is not trained on, and make the chat template's text of the rest."""

    name = "clean and render"

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.words = tokenizer

    def filter(self, doc: Document) -> bool:
        messages = steps.cleaned(doc.metadata["messages"])
        if messages is not None:
            doc.text = self.words.apply_chat_template(messages, tokenize=False)
        return messages is not None


def adapt(self: Any, data: dict[str, Any], path: str, number: int) -> dict[str, Any]:
    """A row as datatrove takes it; the text is made later, and must not be empty."""
    return {"text": "-", "id": data["id"], "metadata": {"messages": data["messages"]}}


def main() -> None:
    """Warm up, run, and tell what it took."""
    conversations, warm_up, model, folder = map(Path, sys.argv[1:])
    words = steps.load_tokenizer(model)
    run(warm_up, model, folder / "warm-up", words)
    print(json.dumps(steps.timed(lambda: run(conversations, model, folder / "out", words))))


def run(conversations: Path, model: Path, folder: Path, words: Any) -> int:
    """Run the pipeline, and return the number of tokens."""
    pipeline = [
        JsonlReader(str(conversations.parent), glob_pattern=conversations.name, adapter=adapt),
        CleanAndRender(words),
        DocumentTokenizer(str(folder / "tokens"), str(model / "tokenizer.json"), seed=0),
    ]
    LocalPipelineExecutor(pipeline, tasks=1, workers=1, logging_dir=str(folder / "logs")).run()
    [metadata] = (folder / "tokens").glob("*.metadata")
    return int(metadata.read_text().splitlines()[1])


if __name__ == "__main__":
    main()
