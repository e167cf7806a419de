"""The journal's format: one SQLite file, `journal.db`, in WAL mode with `synchronous=FULL`.

`stop`   one row for each target of each stop.
    id             the number people use (`lastcall log 17`)
    operation      the id of the first stop that the same command began
    address        as it was written, such as `port:8080`
    label          the command line, for people
    identity_key   which thing exactly; at most one stop without an ending for each key
    identity       what is needed to find the same thing again (JSON)
    begun_wall_s   when (Unix time)
    begun_by       who: user, uid, pid of lastcall
    owner          `boot_id/pid/start_ticks` of the lastcall that drives it; NULL: nobody
    ending, why    NULL while it is open

`event`  what happened, in order; the state of a stop is the fold of these
         (`lastcall.stop.state.evolve`).
    stop, at_s     whose, and when on the boot-time clock
    wall_s         when, for people
    kind, data     `lastcall.journal.codec`
    intent         `rung:attempt` of an `intended` event: unique for each stop, written and synced
                   before the effect, so that no effect happens twice unnoticed

`PRAGMA application_id` is 0x6C617374 ("last"); `PRAGMA user_version` is the schema's version.
`MIGRATIONS[n]` brings version n to n + 1. A journal of a newer version is left untouched.
"""

from __future__ import annotations

APPLICATION_ID = 0x6C617374

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE stop (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        operation INTEGER NOT NULL,
        address TEXT NOT NULL,
        label TEXT NOT NULL,
        identity_key TEXT NOT NULL,
        identity TEXT NOT NULL,
        begun_wall_s REAL NOT NULL,
        begun_by TEXT NOT NULL,
        owner TEXT,
        ending TEXT,
        why TEXT
    ) STRICT;
    CREATE UNIQUE INDEX one_open_stop ON stop (identity_key) WHERE ending IS NULL;
    CREATE TABLE event (
        id INTEGER PRIMARY KEY,
        stop INTEGER NOT NULL REFERENCES stop (id) ON DELETE CASCADE,
        at_s REAL NOT NULL,
        wall_s REAL NOT NULL,
        kind TEXT NOT NULL,
        data TEXT NOT NULL,
        intent TEXT
    ) STRICT;
    CREATE INDEX events_of_stop ON event (stop, id);
    CREATE UNIQUE INDEX one_intent ON event (stop, intent) WHERE intent IS NOT NULL;
    """,
)

VERSION = len(MIGRATIONS)
