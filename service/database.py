"""SQLite for several threads and processes: connections that are lent, durable transactions."""

import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Database:
    """The connections to one SQLite file.

    A connection serves one thread at a time and is kept for the next one. None is opened before
    the first use, so a `Database` may be made before a server forks its workers.
    """

    def __init__(self, path: Path, patience: float = 60.0, mapped: int = 0) -> None:
        """Take a file that may not be there yet.

        Parameters
        ----------
        patience
            In seconds.
        mapped
            How many bytes of the file are read through memory that all connections share.
        """
        self._path = path
        self._patience = patience
        self._mapped = mapped
        self._idle: deque[sqlite3.Connection] = deque()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        try:
            yield connection
        except BaseException:
            connection.close()  # whatever broke it, the next one starts anew
            raise
        self._idle.append(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection within a transaction that is durable when the block has ended."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close every connection that no thread is using."""
        while self._idle:
            self._idle.pop().close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=self._patience, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA mmap_size = {self._mapped}")
        return connection
