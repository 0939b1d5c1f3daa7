"""A dump of every format in its true shape, and what is to become of each row of it, counted as it was written."""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from dumps import exchange, write_chitchat, write_jsonl
from reddit_dump import comment, submission
from test_formats_json import message, tree
from test_formats_movies import utterance, write_cornell
from test_formats_stack_exchange import answer, question, write_xml
from test_formats_stack_exchange import comment as remark
from test_formats_tables import PROMPTS, write_dataset
from test_formats_tweets import write_archive, write_twcs

from scaletrain.data.conversation import Conversation, Drop, Turn

NUM_TALKS = 12
_WORDS = """
about after again another answer around because before better between book bring build carry city clear close cold
colour common country course different door early earth evening every family farm father field fire first food
friend garden great green ground grow hand happy hear heavy help high horse house hundred island keep kind large
late learn leave letter light little long look make many money morning mother mountain move music name near never
night north often open order other paper people picture place plant point quick rain read ready really river road
room round school second sentence short should simple slow small something sometimes song sound south spring stand
start still stone story street strong summer table talk teacher thing think though thought through together town
travel tree under until usual village voice walk warm watch water weather west white whole window winter without
wonder word work world write year yellow young
"""

Talk = list[str]


@dataclass(frozen=True)
class Dump:
    """A corpus, and what is to come of it before duplicates are looked for; `settings` are its other settings."""

    format: str
    source: Path
    kept: int = NUM_TALKS
    dropped: Mapping[str, int] = field(default_factory=dict)
    bad_rows: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.settings.get("name", self.format))

    def corpus(self) -> dict[str, Any]:
        """The corpus as a configuration has it."""
        return {"format": self.format, "source": str(self.source), **self.settings}


def talks(seed: str, count: int = NUM_TALKS, *, turns: int = 2) -> list[Talk]:
    """Conversations in English words that are like no other's; equal for an equal seed."""
    draw = random.Random(seed)
    return [[sentence(draw) for _ in range(turns)] for _ in range(count)]


def sentence(draw: random.Random) -> str:
    """Eight to twenty words."""
    return " ".join(draw.choices(_WORDS.split(), k=draw.randint(8, 20))).capitalize() + "."


def read_row(row: dict[str, Any]) -> Conversation:
    """A format of a user's own."""
    if row["secret"]:
        raise Drop("secret")
    return Conversation((Turn("user", row["asked"]), Turn("assistant", row["said"])), id=row["id"])


def write_every_format(folder: Path) -> list[Dump]:
    """Write them, each into a folder of its own."""
    return [write(folder / write.__name__.strip("_")) for write in _WRITERS]


def _messages(folder: Path) -> Dump:
    for part in range(4):
        rows: Iterable[object] = (exchange(*talk) for talk in talks(f"part {part}", 150, turns=2 + part))
        write_jsonl(folder / f"part-{part}.jsonl", [*rows, "oops", exchange("Is anybody there?")])
    return Dump("messages", folder, kept=600, dropped={"too_few_turns": 4}, bad_rows=4)


def _alpaca(folder: Path) -> Dump:
    rows = [{"instruction": a, "input": b, "output": c} for a, b, c in talks("alpaca", turns=3)]
    folder.mkdir()
    (folder / "data.json").write_bytes(orjson.dumps([*rows, {"instruction": "Only."}]))
    return Dump("alpaca", folder, bad_rows=1)


def _oasst(folder: Path) -> Dump:
    said = talks("oasst", turns=3)

    def posts(number: int) -> list[dict[str, object]]:
        key = f"t{number}"
        more = {"lang": "en", "message_tree_id": key}
        return [
            message(key, said[number][0], **more | {"role": "prompter"}),
            message(f"{key}a", said[number][1], parent=key, rank=0, **more | {"role": "assistant"}),
            message(f"{key}b", said[number][2], parent=key, rank=1, **more | {"role": "assistant"}),
        ]

    half = NUM_TALKS // 2
    trees = [tree(*posts(number)) for number in range(half)]
    write_jsonl(folder / "ready.trees.jsonl", [*trees, tree(message("alone", "Who?", lang="en"))])
    write_jsonl(folder / "ready.messages.jsonl", [post for n in range(half, NUM_TALKS) for post in posts(n)])
    return Dump("oasst", folder, dropped={"no_reply": 1, "not_best_reply": half})


def _cornell(folder: Path) -> Dump:
    lines, conversations = "L9 +++$+++ u9 +++$+++ m0 +++$+++ NOBODY +++$+++ To myself\n", ""
    for number, talk in enumerate(talks("cornell")):
        names = [f"L{number}00{place}" for place in range(2)]
        lines += "".join(
            f"{name} +++$+++ u{place} +++$+++ m0 +++$+++ SHE +++$+++ {text}\n"
            for place, (name, text) in enumerate(zip(names, talk, strict=True))
        )
        conversations += f"u0 +++$+++ u1 +++$+++ m0 +++$+++ {names}\n"
    write_cornell(folder, lines=lines, conversations=conversations + "u0\n")
    return Dump("cornell", folder, dropped={"in_no_conversation": 1}, bad_rows=1)


def _convokit(folder: Path) -> Dump:
    rows: list[object] = [utterance("alone", "Who?", speaker="u", to=None, root="alone")]
    for number, (first, second) in enumerate(talks("convokit")):
        root = f"L{number}"
        rows.append(utterance(f"{root}b", second, speaker=f"v{number}", to=root, root=root))
        rows.append(utterance(root, first, speaker=f"u{number}", to=None, root=root))
    write_jsonl(folder / "utterances.jsonl", [*rows, {"text": "of nobody"}])
    return Dump("convokit", folder, dropped={"no_reply": 1}, bad_rows=1)


def _csv(folder: Path) -> Dump:
    folder.mkdir()
    lines = "".join(f'"{first}, {first}",{second}\n' for first, second in talks("csv"))
    (folder / "a.csv").write_text(f"question,reply\n{lines}alone\n")
    return Dump("csv", folder, bad_rows=1, settings={"columns": PROMPTS, "licence": "CC0-1.0"})


def _parquet(folder: Path) -> Dump:
    folder.mkdir()
    rows = [exchange(*talk)["messages"] for talk in talks("parquet")]
    pq.write_table(pa.table({"messages": [*rows, None]}), folder / "a.parquet", row_group_size=5)
    return Dump("parquet", folder, bad_rows=1)


def _hf_disk(folder: Path) -> Dump:
    rows = [exchange(*talk)["messages"] for talk in talks("hf_disk")]
    write_dataset(folder / "train", pa.table({"messages": [*rows, None]}), licence="mit")
    return Dump("hf_disk", folder, bad_rows=1)


def _twcs(folder: Path) -> Dump:
    folder.mkdir()
    tweets = [(99, "loop", True, "Round and round", "", 99)]
    for number, (first, second) in enumerate(talks("twcs")):
        tweets.append((1000 + number, f"customer{number}", True, f"@company {first}", str(2000 + number), ""))
        tweets.append((2000 + number, "company", False, second, "", 1000 + number))
    write_twcs(folder / "twcs.csv", tweets)
    return Dump("twcs", folder, dropped={"cyclic_replies": 1})


def _x_archive(folder: Path) -> Dump:
    said = talks("x_archive")
    asked = [(f"1{number:03}", first, "") for number, (first, _) in enumerate(said)]
    answered = [(f"2{number:03}", f"@amy {second}", f"1{number:03}") for number, (_, second) in enumerate(said)]
    write_archive(folder / "amy" / "data", "11", [*asked, ("5", "RT @ben: look", "")])
    write_archive(folder / "ben" / "data", "22", answered)
    return Dump("x_archive", folder, dropped={"retweet": 1}, settings={"licence": "with their consent"})


def _reddit(folder: Path) -> Dump:
    said = talks("reddit", turns=3)
    posts = [submission(f"a{n}", first, author=f"asker{n}") for n, (first, _, _) in enumerate(said)]
    replies = [comment(f"b{n}", f"a{n}", f"t3_a{n}", best, score=9) for n, (_, best, _) in enumerate(said)]
    replies += [comment(f"c{n}", f"a{n}", f"t3_a{n}", other, score=3) for n, (_, _, other) in enumerate(said)]
    replies += [comment("d", "a1", "t3_a1", "Bad.", score=-5), comment("e", "zz", "t3_zz", "Whose?")]
    write_jsonl(folder / "RS_2020-01.jsonl", [*posts, "oops"])
    write_jsonl(folder / "RC_2020-01.jsonl", replies)
    dropped = {"low_score": 1, "not_best_reply": NUM_TALKS, "parent_missing": 1}
    return Dump("reddit", folder, dropped=dropped, bad_rows=1, settings={"min_score": 0})


def _stack_exchange(folder: Path) -> Dump:
    rows = [question(9, "<p>Nobody knows</p>")]
    for number, (title, body, reply) in enumerate(talks("stack_exchange", turns=3)):
        asked, answered = 1000 + number, 2000 + number
        rows.append(question(asked, f"<p>{body}</p>", title=title, user=number + 50))
        rows.append(answer(answered, asked, f"<p>{reply} <code>a &lt; b</code></p>", user=number + 90))
    write_xml(folder / "Posts.xml", rows)
    write_xml(folder / "Comments.xml", [remark(1, 2000, "I agree", user=7)])
    return Dump("stack_exchange", folder, dropped={"no_reply": 1, "not_best_reply": 1})


def _text(folder: Path) -> Dump:
    folder.mkdir()
    blocks = ["\n".join(talk).encode() for talk in talks("text", turns=3)]
    (folder / "a.txt").write_bytes(b"\n\n".join([*blocks, b"not\nUTF-8 \xff", b"alone"]) + b"\n")
    return Dump("text", folder, dropped={"too_few_turns": 1}, bad_rows=1)


def _chat_log(folder: Path) -> Dump:
    folder.mkdir()
    blocks = [f"amy{n}: {first}\nben{n}: {second}" for n, (first, second) in enumerate(talks("chat_log"))]
    (folder / "a.log").write_text("\n\n".join([*blocks, "a: 1\nb: 2\nc: 3", "no name"]))
    return Dump("chat_log", folder, dropped={"more_than_two_speakers": 1}, bad_rows=1)


def _whatsapp(folder: Path) -> Dump:
    folder.mkdir()
    lines = ["no export begins like this", "1/1/20, 9:41 AM - Messages are end-to-end encrypted."]
    for n, (first, second) in enumerate(talks("whatsapp"), start=1):
        lines += [f"1/{n}/21, 9:41 AM - Ana{n}: {first}", f"1/{n}/21, 9:43 PM - Ben{n}: {second}"]
    (folder / "a.txt").write_text("\n".join([*lines, f"1/{NUM_TALKS}/21, 9:44 PM - Cem: <Media omitted>"]))
    return Dump("whatsapp", folder, dropped={"system_message": 1, "media_or_deleted": 1}, bad_rows=1)


def _chitchat(folder: Path) -> Dump:
    dialogues = {
        f"id-{n}": [[(f"bob{n}", first)], [(f"amy{n}", second)]] for n, (first, second) in enumerate(talks("chitchat"))
    }
    crowd = [[("a", "1")], [("b", "2")], [("c", "3")]]
    write_chitchat(folder / "dataset.json", {**dialogues, "monologue": [[("bob", "Anyone?")]], "crowd": crowd})
    return Dump("chitchat", folder, dropped={"more_than_two_speakers": 1, "too_few_turns": 1})


def _chatterbot(folder: Path) -> Dump:
    (folder / "english").mkdir(parents=True)
    lines = "".join(f"- - {first}\n  - {second}\n" for first, second in talks("chatterbot"))
    text = f"categories:\n- food\nconversations:\n{lines}- just a line\n"
    (folder / "english" / "food.yml").write_text(text)
    return Dump("chatterbot", folder, bad_rows=1)


def _own(folder: Path) -> Dump:
    rows = [{"id": f"own-{n}", "asked": a, "said": b, "secret": False} for n, (a, b) in enumerate(talks("own"))]
    write_jsonl(folder / "a.jsonl", [*rows, {"secret": True}, {"secret": False}])
    return Dump("every_format:read_row", folder, dropped={"secret": 1}, bad_rows=1, settings={"name": "own"})


_WRITERS: tuple[Callable[[Path], Dump], ...] = (
    *(_messages, _alpaca, _oasst, _cornell, _convokit, _csv, _parquet, _hf_disk, _twcs, _x_archive, _reddit),
    *(_stack_exchange, _text, _chat_log, _whatsapp, _chitchat, _chatterbot, _own),
)
