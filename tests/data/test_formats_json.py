from pathlib import Path

import orjson
from dumps import write_jsonl
from reading import conversations, read, rejects, roles, texts

from scaletrain.data.formats import Rejected

Message = dict[str, object]


def message(id: str, text: str, *, parent: str | None = None, rank: int | None = None, **more: object) -> Message:
    """A message of Open Assistant's exports; the length of `id` says whose turn it is."""
    return {
        "message_id": id,
        "parent_id": parent,
        "user_id": f"user {id[-1]}",
        "created_date": "2023-02-05T14:23:50.983374+00:00",
        "text": text,
        "role": "prompter" if len(id) % 2 else "assistant",
        "lang": "es",
        "review_count": 3,
        "review_result": True,
        "deleted": False,
        "rank": rank,
        "synthetic": False,
        "model_name": None,
        "detoxify": None,
        "message_tree_id": "a",
        "tree_state": "ready_for_export",
        "labels": {"name": ["spam"], "value": [0.0], "count": [3]},
    } | more


def tree(*messages: Message) -> Message:
    """The same messages nested, as a line of *.trees.jsonl has them."""

    def nested(each: Message) -> Message:
        return each | {"replies": [nested(other) for other in messages if other["parent_id"] == each["message_id"]]}

    return {"message_tree_id": "a", "tree_state": "ready_for_export", "prompt": nested(messages[0])}


TALK = [
    message("a", "¿Qué tal?"),
    message("ab", "Mal.", parent="a", rank=1),
    message("ac", "Bien.", parent="a", rank=0),
    message("aca", "¿Por qué?", parent="ac"),
    message("abz", "¿Y eso?", parent="ab"),
]


def test_alpacas_input_stands_below_its_instruction(tmp_path: Path) -> None:
    """One JSON array, as the file is; an empty input leaves no trace."""
    rows = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"instruction": "Say hello.", "input": "", "output": "Hello."},
        {"instruction": "Only.", "output": "No input."},
        {"instruction": "No output."},
        {"instruction": "a", "input": 3, "output": "b"},
    ]
    (tmp_path / "alpaca_data.json").write_bytes(orjson.dumps(rows))
    items = read(tmp_path / "alpaca_data.json", "alpaca", licence="CC-BY-NC-4.0")
    assert texts(items) == [["Add.\n\n1 and 2", "3"], ["Say hello.", "Hello."], ["Only.", "No input."]]
    assert {item.licence for item in conversations(items)} == {"CC-BY-NC-4.0"}
    details = [item.detail for item in items if isinstance(item, Rejected)]
    assert details == ["no text under output, only instruction", "input is not text"]


def test_a_tree_gives_the_path_that_people_ranked_best(tmp_path: Path) -> None:
    """Nested or flat, the same conversation, with its language, its authors and the licence of the dump."""
    nested = read(write_jsonl(tmp_path / "oasst_ready.trees.jsonl", [tree(*TALK)]), "oasst")
    flat = read(write_jsonl(tmp_path / "oasst_ready.messages.jsonl", [*reversed(TALK)]), "oasst")
    for items in (nested, flat):
        (conversation,) = conversations(items)
        assert texts([conversation]) == [["¿Qué tal?", "Bien.", "¿Por qué?"]]
        assert roles(conversation) == "user assistant user"
        assert (conversation.id, conversation.language, conversation.licence) == ("a", "es", "Apache-2.0")
    assert rejects(nested) == {}
    assert rejects(flat) == {"not_best_reply": 2}


def test_what_was_deleted_or_failed_review_is_left_out(tmp_path: Path) -> None:
    """And what answers it; then the next best reply is taken."""
    rows = [each | {"deleted": each["message_id"] == "ac"} for each in TALK]
    nested = read(write_jsonl(tmp_path / "a.trees.jsonl", [tree(*rows)]), "oasst")
    flat = read(write_jsonl(tmp_path / "a.messages.jsonl", rows), "oasst")
    assert texts(nested) == texts(flat) == [["¿Qué tal?", "Mal.", "¿Y eso?"]]
    assert rejects(flat) == {"deleted": 1, "parent_missing": 1}
    failed = read(write_jsonl(tmp_path / "b.trees.jsonl", [tree(TALK[0] | {"review_result": False})]), "oasst")
    assert rejects(failed) == {"deleted": 1}


def test_a_prompt_without_a_reply_is_counted(tmp_path: Path) -> None:
    """As in the trees of oasst_all; rows that are no messages are bad ones."""
    rows = [tree(TALK[0]), TALK[0], {"message_id": "x"}, TALK[1] | {"role": "teacher"}, 3]
    assert rejects(read(write_jsonl(tmp_path / "a.jsonl", rows), "oasst")) == {"bad_row": 3, "no_reply": 2}
