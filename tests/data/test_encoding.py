"""encoding: conversations become documents, row by row."""

from byte_tokenizer import make_byte_tokenizer

from scaletrain.data.encoding import CONVERSATIONS, DOCUMENTS, Encoder, encode_table


def test_a_table_without_rows_gives_one() -> None:
    """With all its columns: a reading task may have found nothing."""
    encoded = encode_table(CONVERSATIONS.empty_table(), Encoder([], make_byte_tokenizer(), None, None))
    assert (encoded.schema, len(encoded)) == (DOCUMENTS, 0)
