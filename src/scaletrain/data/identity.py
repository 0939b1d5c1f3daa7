"""What determines a dataset, and what determines the documents of one part of a corpus: hashes that name them.

Where something lies, how often it may fail, and whether work is kept determine neither.
"""

from collections.abc import Sequence

import orjson
import xxhash

from scaletrain import storage
from scaletrain.config_data import DataSection
from scaletrain.data import cleaning, shards
from scaletrain.data.encoding import DOCUMENTS
from scaletrain.data.formats import SourceFile
from scaletrain.data.leakage import Leakage
from scaletrain.data.parts import Part
from scaletrain.data.user_function import source_hash
from scaletrain.storage.errors import without_password

_DOCUMENTS_VERSION = 3  # raise it with any change in reading, cleaning or encoding that makes other documents
_RECIPE_VERSION = 4  # raise it with any change that makes other rows of the same documents

_NOT_OF_THE_ROWS = {"max_bad_rows", "reuse"}
# What is done with documents, not what is in them. A setting that is not named here makes other documents.
_NOT_OF_A_DOCUMENT = _NOT_OF_THE_ROWS | {
    *("corpora", "chat_template", "leakage"),  # looked at themselves
    *("seq_len", "validation", "hold_out", "duplicates", "similarity", "temperature", "max_epochs"),
}
_NOT_OF_A_DOCUMENTS_CORPUS = {"source", "name", "weight", "epochs"}


def dataset_id(
    section: DataSection, files: Sequence[Sequence[SourceFile]], *, tokenizer_hash: str, leakage: Leakage | None
) -> str:
    """Hash what determines the rows: sources and their versions, settings, the user's functions, the tokenizer."""
    determined_by = [
        [_RECIPE_VERSION, shards.FORMAT_VERSION],
        section.model_dump(exclude={"corpora", "chat_template", "leakage", *_NOT_OF_THE_ROWS}),
        [
            [corpus.model_dump(exclude={"source", "name"}) | {"name": name}, *_read_from(corpus.format, of_corpus)]
            for name, corpus, of_corpus in zip(corpus_names(section), section.corpora, files, strict=True)
        ],
        _of_every_document(section, tokenizer_hash, leakage),
    ]
    return _hash(determined_by)[:16]


def part_keys(
    parts: Sequence[Part], section: DataSection, *, tokenizer_hash: str, leakage: Leakage | None
) -> list[str]:
    """Hash for each part what determines its documents; not its place among the others."""
    of_all = [
        str(DOCUMENTS),
        section.model_dump(exclude=_NOT_OF_A_DOCUMENT),
        section.similarity if section.duplicates == "near" else None,  # documents have fingerprints for it
        _of_every_document(section, tokenizer_hash, leakage),
    ]
    of_corpora = [corpus.model_dump(exclude=_NOT_OF_A_DOCUMENTS_CORPUS) for corpus in section.corpora]
    return [
        _hash([of_all, of_corpora[part.corpus], _read_from(section.corpora[part.corpus].format, part.files)])
        for part in parts
    ]


def settings_of(section: DataSection) -> dict[str, object]:
    """What determines what comes out, for stats.json: recipe and settings; where something lies is not one of them."""
    settings = section.model_dump(
        mode="json", exclude={"max_bad_rows": True, "reuse": True, "corpora": {"__all__": {"source"}}}
    )
    if section.chat_template is not None:
        settings["chat_template"] = xxhash.xxh3_64_hexdigest(storage.read_bytes(section.chat_template))
    recipe = f"{_DOCUMENTS_VERSION}.{_RECIPE_VERSION}"
    return {"recipe_version": recipe} | {name: _without_passwords(value) for name, value in settings.items()}


def corpus_names(section: DataSection) -> tuple[str, ...]:
    """How reports call the corpora."""
    return tuple(corpus.name or corpus.format for corpus in section.corpora)


def _of_every_document(section: DataSection, tokenizer_hash: str, leakage: Leakage | None) -> list[object]:
    template = section.chat_template
    return [
        [_DOCUMENTS_VERSION, tokenizer_hash],
        cleaning.determined_by(section),
        storage.read_text(template) if template is not None else None,
        [[file.url, file.version] for file in leakage.files] if leakage is not None else [],
    ]


def _read_from(format_name: str, files: Sequence[SourceFile]) -> list[object]:
    """What the rows of files depend on besides the settings of their corpus."""
    return [
        [[file.name, file.size_bytes, file.version] for file in files],
        source_hash(format_name, setting="data") if ":" in format_name else "",
    ]


def _hash(determined_by: Sequence[object]) -> str:
    return xxhash.xxh3_128_hexdigest(orjson.dumps(determined_by, option=orjson.OPT_SORT_KEYS))


def _without_passwords(value: object) -> object:
    """A setting as it may be shown: URLs in it without user and password."""
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, dict):
        return {name: _without_passwords(each) for name, each in value.items()}
    return [_without_passwords(each) for each in value] if isinstance(value, (list, tuple)) else value
