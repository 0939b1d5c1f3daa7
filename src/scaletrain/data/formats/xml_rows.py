"""Read <row .../> elements of an XML file of any size, and believe nothing that it says about itself.

The parser is Python's expat. A file that declares entities is refused (with a few lines of them one could ask for
gigabytes), and so is an element of more than MAX_LINE_BYTES.
"""

from collections.abc import Iterator
from xml.parsers import expat

from scaletrain.data.formats.files import MAX_LINE_BYTES, SourceFile, opened
from scaletrain.errors import DataError

_CHUNK_BYTES = 2**16


def xml_rows(file: SourceFile) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (place, attributes) of each row; DataError with line and byte where the file is not sound XML."""
    rows: list[tuple[str, dict[str, str]]] = []
    parser = expat.ParserCreate(encoding="utf-8")  # as all dumps are, whatever a damaged one declares
    parser.buffer_text = True

    def on_element(name: str, attributes: dict[str, str]) -> None:
        if name == "row":
            rows.append((f"{file.name}:{parser.CurrentLineNumber}", attributes))

    def on_entity(name: str, *_: object) -> None:
        raise DataError(f"{file.name}:{parser.CurrentLineNumber}: declares the entity {name}, which no dump needs")

    parser.StartElementHandler = on_element
    parser.EntityDeclHandler = on_entity
    fed_bytes = 0
    with opened(file) as stream:
        while True:
            chunk = stream.read(_CHUNK_BYTES)
            fed_bytes += len(chunk)
            try:
                parser.Parse(chunk, not chunk)
            except expat.ExpatError as exc:
                raise DataError(
                    f"{file.name}:{exc.lineno}: not XML (at byte {parser.ErrorByteIndex}): "
                    f"{expat.ErrorString(exc.code)}; fetch or unpack the file again"
                ) from exc
            yield from rows
            rows.clear()
            if not chunk:
                return
            if fed_bytes - parser.CurrentByteIndex > MAX_LINE_BYTES:
                raise DataError(
                    f"{file.name}:{parser.CurrentLineNumber}: an element of more than {MAX_LINE_BYTES:,} bytes "
                    f"(at byte {parser.CurrentByteIndex})"
                )
