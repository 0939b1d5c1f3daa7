"""Fixtures for judgings: a real PostgreSQL server, and databases on it and in files."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from streaming_models import Models


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of its own on a free port, as the system's packages install it; the test is skipped without.

    As root it runs as the user postgres, since it refuses root.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="scaletrain-postgresql-"))
    if as_user:
        shutil.chown(folder, "postgres")
    data, port = folder / "data", _free_port()
    program = programs[-1].parent
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c shared_buffers=8MB"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "cwd": folder}
    subprocess.run(
        [*as_user, program / "initdb", "-D", data, "-A", "trust", "-U", "judge", "--no-sync"], check=True, **quiet
    )
    log = folder / "log"
    subprocess.run(
        [*as_user, program / "pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start"], check=True, **quiet
    )
    try:
        yield f"postgresql://judge@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*as_user, program / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=False, **quiet)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "votes.sqlite")
        return
    import psycopg

    url = request.getfixturevalue("postgresql")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS judge_votes, judge_feedback, judge_settings")
    yield url


@pytest.fixture
def models() -> Iterator[Models]:
    """A server of models that stream."""
    with Models() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
