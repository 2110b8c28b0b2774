"""The file of the interaction index: a cache beside the journal. It is never evidence and holds no text."""

from __future__ import annotations

from pathlib import Path

from treadle.record.cache_file import CacheFile

FORMAT = 3  # 3: `smoke` tells a shadow's copies (2) from smoke questions (1)
BUCKET_SECONDS = 300  # what figures over time are kept by
SPREAD = 1 << 21  # a key is the time in milliseconds, times this, and some bits of a hash of the id

# interactions.key: rows lie in the order of time, and every index on them ends in it.
# facets: each combination of what is filtered by, once. So one index answers every filter, newest first.
# volume, latency: counts by span of time; the triggers keep them, whatever is done to the rows.
_SCHEMA = """
CREATE TABLE progress (
    id INTEGER PRIMARY KEY CHECK (id = 1), seen INTEGER NOT NULL, segment TEXT NOT NULL);
INSERT INTO progress VALUES (1, 0, '');
CREATE TABLE sources (
    id INTEGER PRIMARY KEY, stream TEXT NOT NULL, file TEXT, segment TEXT UNIQUE, done INTEGER NOT NULL DEFAULT 0,
    expected INTEGER NOT NULL DEFAULT 0, read INTEGER NOT NULL DEFAULT 0, start INTEGER NOT NULL DEFAULT 0,
    low INTEGER, high INTEGER);
CREATE INDEX sources_file ON sources (file);
CREATE INDEX sources_pending ON sources (id) WHERE done = 0;
CREATE TABLE people (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE);
CREATE TABLE facets (
    id INTEGER PRIMARY KEY, release TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL, status TEXT NOT NULL,
    stored INTEGER NOT NULL, smoke INTEGER NOT NULL, erased INTEGER NOT NULL, unsure INTEGER NOT NULL,
    thumbs INTEGER NOT NULL, poor INTEGER NOT NULL, corrected INTEGER NOT NULL, commented INTEGER NOT NULL,
    rated INTEGER NOT NULL, reviewed INTEGER NOT NULL, is_case INTEGER NOT NULL, requests INTEGER NOT NULL DEFAULT 0,
    UNIQUE (release, model, endpoint, status, stored, smoke, erased, unsure,
            thumbs, poor, corrected, commented, rated, reviewed, is_case));
CREATE TABLE interactions (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, facet INTEGER NOT NULL, user INTEGER, api_key INTEGER,
    prompt INTEGER, completion INTEGER, seconds REAL, ttft REAL, slot INTEGER, rate REAL, finish TEXT, share REAL,
    confidence REAL, score REAL, opinions INTEGER NOT NULL,
    source INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL);
CREATE INDEX interactions_facet ON interactions (facet);
CREATE INDEX interactions_user ON interactions (user, facet) WHERE user IS NOT NULL;
CREATE TABLE feedback (
    id TEXT PRIMARY KEY, interaction TEXT NOT NULL, time TEXT NOT NULL, kind TEXT NOT NULL, value REAL, user INTEGER,
    said INTEGER NOT NULL, commented INTEGER NOT NULL, console INTEGER NOT NULL, erased INTEGER NOT NULL,
    source INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL);
CREATE INDEX feedback_interaction ON feedback (interaction);
CREATE INDEX feedback_source ON feedback (source);
CREATE TABLE cases (id TEXT PRIMARY KEY, interaction TEXT NOT NULL, source INTEGER NOT NULL);
CREATE INDEX cases_interaction ON cases (interaction);
CREATE TABLE volume (
    bucket INTEGER NOT NULL, facet INTEGER NOT NULL, requests INTEGER NOT NULL, tokens INTEGER NOT NULL,
    PRIMARY KEY (bucket, facet)) WITHOUT ROWID;
CREATE TABLE latency (
    bucket INTEGER NOT NULL, slot INTEGER NOT NULL, requests INTEGER NOT NULL,
    PRIMARY KEY (bucket, slot)) WITHOUT ROWID;
CREATE TRIGGER interaction_in AFTER INSERT ON interactions BEGIN
    UPDATE facets SET requests = requests + 1 WHERE id = new.facet;
    INSERT INTO volume VALUES (new.key / {bucket}, new.facet, 1, new.prompt + new.completion)
        ON CONFLICT (bucket, facet) DO UPDATE SET requests = requests + 1, tokens = tokens + excluded.tokens;
END;
CREATE TRIGGER interaction_slow AFTER INSERT ON interactions WHEN new.slot IS NOT NULL BEGIN
    INSERT INTO latency VALUES (new.key / {bucket}, new.slot, 1)
        ON CONFLICT (bucket, slot) DO UPDATE SET requests = requests + 1;
END;
CREATE TRIGGER interaction_out AFTER DELETE ON interactions BEGIN
    UPDATE facets SET requests = requests - 1 WHERE id = old.facet;
    UPDATE volume SET requests = requests - 1, tokens = tokens - old.prompt - old.completion
        WHERE bucket = old.key / {bucket} AND facet = old.facet;
    UPDATE latency SET requests = requests - 1 WHERE bucket = old.key / {bucket} AND slot = old.slot;
END;
CREATE TRIGGER interaction_other AFTER UPDATE OF facet ON interactions WHEN new.facet <> old.facet BEGIN
    UPDATE facets SET requests = requests - 1 WHERE id = old.facet;
    UPDATE facets SET requests = requests + 1 WHERE id = new.facet;
    UPDATE volume SET requests = requests - 1, tokens = tokens - old.prompt - old.completion
        WHERE bucket = old.key / {bucket} AND facet = old.facet;
    INSERT INTO volume VALUES (new.key / {bucket}, new.facet, 1, new.prompt + new.completion)
        ON CONFLICT (bucket, facet) DO UPDATE SET requests = requests + 1, tokens = tokens + excluded.tokens;
END;
""".replace("{bucket}", str(BUCKET_SECONDS * 1000 * SPREAD))


def index_file(path: Path) -> CacheFile:
    """The file at a path, not opened yet."""
    return CacheFile(path, _SCHEMA, FORMAT)
