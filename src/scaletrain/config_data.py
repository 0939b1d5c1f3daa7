"""The configuration of the data: corpora, how they are cleaned, held out and mixed, and rows of tokens."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from scaletrain.config_cleaning import CleaningStep, uncounted
from scaletrain.config_section import Count, Float, Int, Number, Positive, Section


class Corpus(Section):
    """One source of conversations."""

    format: str = Field(
        description="messages, reddit, csv, ... (docs/data.md), or your own function as my_package.module:read_row"
    )
    source: str = Field(
        min_length=1, description="a file, folder or glob; any fsspec URL; .gz, .bz2, .xz and .zst are read as they are"
    )
    name: str | None = Field(None, description="how reports call it; the format's name by default")
    limit: Count | None = Field(None, description="take the first N conversations only")
    licence: str | None = Field(
        None, min_length=1, description="of what the rows do not tell themselves, best as an SPDX id"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="of csv, parquet and hf_disk: {messages: m}, {prompt: p, answer: a}, ..."
    )
    min_score: Int | None = Field(None, description="of reddit and stack_exchange: lower posts are left out")
    epochs: Positive = Field(1.0, description="how often its training conversations are there; 0.5: half of them")
    weight: Positive | None = Field(None, description="its share of the training tokens, beside the other weights")


class DataSection(Section):
    """Which conversations, how they are cleaned, and how they become rows of tokens."""

    corpora: tuple[Corpus, ...] = Field(min_length=1, description="a list of {format, source}")
    seq_len: Annotated[Int, Field(ge=16)] = Field(1024, description="tokens in a packed row")
    validation: Annotated[Float, Field(ge=0, le=0.5)] = Field(0.02, description="share of conversations held out")
    hold_out: Literal["author", "conversation"] = Field(
        "author", description="author: who is held out is never trained on; by conversation where no author is known"
    )
    duplicates: Literal["near", "exact", "keep"] = Field("near", description="which of them to leave out")
    similarity: Annotated[Float, Field(ge=0.5, le=0.95)] = Field(
        0.8, description="share of word triples that near-duplicates have in common"
    )
    leakage: tuple[str, ...] = Field((), description="benchmark files (.jsonl, .txt); what quotes them is left out")
    temperature: Annotated[Float, Field(ge=1)] = Field(
        1.0, description="above 1, small corpora and languages get more of the training tokens"
    )
    max_epochs: Annotated[Float, Field(ge=1)] = Field(
        4.0, description="how often weights and temperature may repeat a conversation"
    )
    cleaning: tuple[CleaningStep, ...] = Field(
        ("fix_unicode", "drop_empty_turns", "merge_turns", "check_length"),
        description="steps in order: names, or {name: {setting: value}}; your own as my_package.module:function",
    )
    min_turns: Count = Field(2, description="shorter conversations are dropped, and counted")
    min_chars: Number = Field(1, description="in all turns together")
    max_chars: Count = Field(200_000, description="in all turns together")
    max_bad_rows: Number = Field(100, description="unreadable rows to skip before giving up")
    system_prompt: str | None = Field(None, description="put before conversations that have none")
    chat_template: str | None = Field(None, description="a Jinja file or URL; the tokenizer's own by default")
    thinking: bool = Field(
        False,
        description="answers hold thoughts (<think>...</think>); false: templates that know thinking leave it out",
    )
    reuse: bool = Field(
        True, description="keep tokenised documents in the bucket for the next preparation, and use them"
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        names = [corpus.name or corpus.format for corpus in self.corpora]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield f"corpora.{index}.name", f"{name} is the name of another corpus too; give each its own name"
        if self.similarity != 0.8 and self.duplicates != "near":
            yield "similarity", "goes with duplicates: near; remove it, or change duplicates"
        weighted = [corpus.weight is not None for corpus in self.corpora]
        if any(weighted) and not all(weighted):
            yield f"corpora.{weighted.index(False)}.weight", "missing; give every corpus a weight, or none"
        for index, corpus in enumerate(self.corpora):
            if corpus.weight is not None and corpus.epochs != 1:
                yield f"corpora.{index}.epochs", "got epochs and a weight; keep one of the two"
        for position, problem in uncounted(self.cleaning):
            yield f"cleaning.{position}", problem
