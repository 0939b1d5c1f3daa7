"""Dumps of Stack Exchange: each question with its accepted answer, else the best-scored one, as Markdown.

Read are Posts.xml and, where it is there, Comments.xml of the same folder: what asker and answerer go on to say below
the chosen answer follows as further turns. Rows are brought together on disk: comments with the answer they stand
below, then answers with their question. Left out and counted: `low_score` posts (below `min_score`), `no_reply`
questions, answers and comments that were not chosen (`not_best_reply`; so are all comments below a question),
`parent_missing`, and posts that are neither question nor answer (`no_dialogue`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby

from scaletrain.config_data import Corpus
from scaletrain.data.conversation import Conversation, Role, Turn
from scaletrain.data.formats.files import SourceFile, bare_name, folder_of
from scaletrain.data.formats.grouping import Group, Grouping
from scaletrain.data.formats.html_text import to_markdown
from scaletrain.data.formats.items import BAD_ROW, Item, Rejected, Tally, parsed
from scaletrain.data.formats.xml_rows import xml_rows
from scaletrain.errors import DataError

POSTS = "Posts.xml"
COMMENTS = "Comments.xml"
# Which licence what was written before a day is under: https://stackoverflow.com/help/licensing
_LICENCES = (("2011-04-08", "CC-BY-SA-2.5"), ("2018-05-02", "CC-BY-SA-3.0"), ("9999", "CC-BY-SA-4.0"))


@dataclass(frozen=True, slots=True)
class _Comment:
    author: str
    text: str
    time: str  # ISO 8601, which sorts as text
    licence: str
    source: str


@dataclass(frozen=True, slots=True)
class _Post:
    id: str
    question_id: str  # of a question its own
    accepted_id: str
    author: str
    title: str
    html: str
    score: int
    time: str
    licence: str
    source: str


def read_stack_exchange(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read the posts of one site, or of several in folders of their own, with their comments."""
    tally = Tally()
    with Grouping() as answers, Grouping() as threads:
        for file in sorted(files, key=lambda each: each.name):
            is_comments = bare_name(file.name).endswith(COMMENTS)
            for source, row in xml_rows(file):
                try:
                    if is_comments:
                        comment = _comment(row, source)
                        answers.add(folder_of(file.name) + row["PostId"], [None, astuple(comment)])
                    elif row.get("PostTypeId") not in ("1", "2"):
                        tally.add("no_dialogue", source)
                    elif corpus.min_score is not None and _score(row) < corpus.min_score:
                        tally.add("low_score", source)
                    else:
                        post = _post(row, source)
                        is_question = post.id == post.question_id
                        into = threads if is_question else answers
                        into.add(folder_of(file.name) + post.id, [astuple(post), [] if is_question else None])
                except DataError as exc:
                    yield Rejected(source, BAD_ROW, str(exc))
        for group in answers.groups():
            _pass_on(group, threads, tally)
        for group in threads.groups():
            yield from _read_thread(group, tally)
    yield from tally.rejected()


def _pass_on(group: Group, threads: Grouping, tally: Tally) -> None:
    """Give an answer and its comments to its question's thread; comments on anything else are of no use."""
    if group.rows is None:
        tally.add("thread_too_large", group.key, group.count)
        return
    comments = sorted((row[1] for row in group.rows if row[0] is None), key=lambda each: (each[2], each[4]))
    posts = [_Post(*row[0]) for row in group.rows if row[0] is not None]
    for post in posts[1:]:
        tally.add("duplicate_id", post.source)
    if posts:
        key = group.key.removesuffix(posts[0].id) + posts[0].question_id
        threads.add(key, [astuple(posts[0]), comments])
    else:
        tally.add("not_best_reply", comments[0][4], len(comments))


def _read_thread(group: Group, tally: Tally) -> Iterator[Item]:
    if group.rows is None:
        tally.add("thread_too_large", group.key, group.count)
        return
    posts = [(_Post(*post), [_Comment(*comment) for comment in comments]) for post, comments in group.rows]
    questions = [post for post, _ in posts if post.id == post.question_id]
    answers = [(post, comments) for post, comments in posts if post.id != post.question_id]
    for question in questions[1:]:
        tally.add("duplicate_id", question.source)
    if not questions:
        for answer, comments in answers:
            tally.add("parent_missing", answer.source, 1 + len(comments))
        return
    question = questions[0]
    if not answers:
        tally.add("no_reply", question.source)
        return
    best, comments = min(answers, key=lambda each: (each[0].id != question.accepted_id, -each[0].score, each[0].time))
    for answer, others in answers:
        if answer is not best:
            tally.add("not_best_reply", answer.source, 1 + len(others))
    following = _dialogue(comments, question.author, best.author)
    if len(comments) > len(following):
        tally.add("not_best_reply", comments[0].source, len(comments) - len(following))
    item = parsed(lambda _: _conversation(question, best, following), None, question.source)
    yield Rejected(item.source, item.reason, item.detail, 2 + len(following)) if isinstance(item, Rejected) else item


def _dialogue(comments: Sequence[_Comment], asker: str, answerer: str) -> list[_Comment]:
    """What the two say below the answer, from the asker's first comment on."""
    if not asker or not answerer or asker == answerer:
        return []
    theirs = [comment for comment in comments if comment.author in (asker, answerer)]
    first = next((i for i, comment in enumerate(theirs) if comment.author == asker), len(theirs))
    return theirs[first:]


def _conversation(question: _Post, answer: _Post, comments: Sequence[_Comment]) -> Conversation:
    body = to_markdown(question.html)
    turns = [Turn("user", f"{question.title}\n\n{body}" if question.title else body)]
    turns.append(Turn("assistant", to_markdown(answer.html)))
    for author, run in groupby(comments, key=lambda each: each.author):
        role: Role = "user" if author == question.author else "assistant"
        turns.append(Turn(role, "\n".join(comment.text for comment in run)))
    licences = {question.licence, answer.licence, *(comment.licence for comment in comments)}
    licence = "" if "" in licences else " AND ".join(sorted(licences))  # of a part nobody knows, of the whole neither
    authors = dict.fromkeys(author for author in (question.author, answer.author) if author)
    return Conversation(tuple(turns), id=question.id, authors=tuple(authors), licence=licence)


def _post(row: dict[str, str], source: str) -> _Post:
    is_question = row["PostTypeId"] == "1"
    _check(row, "Id", "Body", *([] if is_question else ["ParentId"]))
    return _Post(
        id=row["Id"],
        question_id=row["Id"] if is_question else row["ParentId"],
        accepted_id=row.get("AcceptedAnswerId", ""),
        author=row.get("OwnerUserId") or row.get("OwnerDisplayName", ""),
        title=row.get("Title", "") if is_question else "",
        html=row["Body"],
        score=_score(row),
        time=row.get("CreationDate", ""),
        licence=_licence(row),
        source=source,
    )


def _comment(row: dict[str, str], source: str) -> _Comment:
    _check(row, "PostId", "Text")
    author = row.get("UserId") or row.get("UserDisplayName", "")
    return _Comment(author, row["Text"], row.get("CreationDate", ""), _licence(row), source)


def _check(row: dict[str, str], *needed: str) -> None:
    missing = [name for name in needed if not row.get(name)]
    if missing:
        raise DataError(f"a row without {', '.join(missing)}, only {', '.join(row) or 'nothing'}")


def _score(row: dict[str, str]) -> int:
    try:
        score = int(row.get("Score") or 0)
    except ValueError as exc:
        raise DataError(f"Score is {row['Score'][:20]}, not a number") from exc
    if abs(score) >= 2**53:
        raise DataError(f"Score is {row['Score'][:20]}, which no post has")
    return score


def _licence(row: dict[str, str]) -> str:
    """What the row says (dumps since 2020), else what holds for its day."""
    if "ContentLicense" in row:
        return row["ContentLicense"].replace(" ", "-")
    day = row.get("CreationDate", "")
    return next(licence for before, licence in _LICENCES if day < before) if day else ""
