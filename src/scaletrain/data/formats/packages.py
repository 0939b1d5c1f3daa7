"""The formats of two packages on PyPI that carry conversations.

    chitchat     the JSON file of chitchat-dataset (MIT): two people, the first to speak is the user
    chatterbot   the YAML files of chatterbot-corpus (BSD-3-Clause): lists of lines, user and assistant in turn

Both are parsed in memory, a file at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from scaletrain.config_data import Corpus
from scaletrain.data.conversation import Conversation, Drop, Turn
from scaletrain.data.formats.files import SourceFile, load_json, opened, read_whole
from scaletrain.data.formats.items import Item, parsed
from scaletrain.errors import DataError

# The folders of chatterbot-corpus that have one language (hinglish mixes two), with its ISO 639-1 code.
_LANGUAGES = {
    "bengali": "bn",
    "chinese": "zh",
    "dutch": "nl",
    "english": "en",
    "french": "fr",
    "german": "de",
    "hebrew": "he",
    "hindi": "hi",
    "indonesian": "id",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "marathi": "mr",
    "oriya": "or",
    "persian": "fa",
    "portuguese": "pt",
    "russian": "ru",
    "spanish": "es",
    "swedish": "sv",
    "tamil": "ta",
    "telugu": "te",
    "thai": "th",
    "traditionalchinese": "zh",
    "turkish": "tr",
    "ukrainian": "uk",
    "urdu": "ur",
    "yoruba": "yo",
}


def read_chitchat(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read {id: {"messages": [[{text, sender, timestamp}, ...], ...]}}; what one sender says in a row is one turn."""
    for file in files:
        with opened(file) as stream:
            dialogues = load_json(read_whole(stream, file.name), file.name)
        if not isinstance(dialogues, dict):
            raise DataError(f"{file.name}: not a chitchat file: expected an object of dialogues")
        for key, dialogue in dialogues.items():
            item = parsed(_chitchat_dialogue, dialogue, f"{file.name}:{key}")
            yield replace(item, id=key) if isinstance(item, Conversation) else item


def read_chatterbot(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read {conversations: [[line, line, ...], ...]}; every scalar is text, also `no`, `1` and `null`."""
    for file in files:
        with opened(file) as stream:
            document = _load_yaml(read_whole(stream, file.name), file.name)
        if not isinstance(document, dict) or not isinstance(document.get("conversations"), list):
            raise DataError(f"{file.name}: not a chatterbot file: it has no list of conversations")
        folder = file.name.split("/")[-2] if "/" in file.name else ""
        for number, lines in enumerate(document["conversations"], start=1):
            item = parsed(_chatterbot_lines, lines, f"{file.name}:conversation {number}")
            yield replace(item, language=_LANGUAGES.get(folder, "")) if isinstance(item, Conversation) else item


def _load_yaml(data: bytes, name: str) -> object:
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        # A few lines of aliases of aliases stand for gigabytes; the corpus has none.
        if b"*" in data and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, Loader=loader)):
            raise DataError(f"{name}: has YAML aliases (*name), which no chatterbot file needs; write them out")
        return yaml.load(data, Loader=loader)
    except yaml.YAMLError as exc:
        raise DataError(f"{name}: not YAML: {' '.join(str(exc).split())}") from exc
    except RecursionError as exc:
        raise DataError(f"{name}: YAML that is nested too deeply; a conversation is a list of lines") from exc


def _chitchat_dialogue(dialogue: object) -> Conversation:
    if not isinstance(dialogue, dict) or not isinstance(dialogue.get("messages"), list):
        raise DataError("no list of messages")
    utterances = []
    for run in dialogue["messages"]:
        for utterance in run if isinstance(run, list) else [None]:
            if not isinstance(utterance, dict) or not isinstance(utterance.get("text"), str):
                raise DataError("an utterance without text")
            utterances.append((str(utterance.get("sender")), utterance["text"]))
    return two_speakers(utterances)


def two_speakers(utterances: Sequence[tuple[str, str]]) -> Conversation:
    """Make a conversation of (speaker, text): who speaks first is the user, what one says in a row is one turn.

    Raises Drop where there are more than two speakers.
    """
    speakers = list(dict.fromkeys(speaker for speaker, _ in utterances))
    if len(speakers) > 2:
        raise Drop("more_than_two_speakers")
    turns = []
    for speaker, run in groupby(utterances, key=lambda each: each[0]):
        text = "\n".join(text for _, text in run if text.strip())
        turns.append(Turn("user" if speaker == speakers[0] else "assistant", text))
    return Conversation(tuple(turns), authors=tuple(speakers))


def _chatterbot_lines(lines: object) -> Conversation:
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise DataError("a conversation must be a list of lines")
    return Conversation(tuple(Turn("assistant" if i % 2 else "user", line) for i, line in enumerate(lines)))
