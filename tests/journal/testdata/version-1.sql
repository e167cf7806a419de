-- A journal of format version 1, as the first lastcall wrote it. Never change this file: it stands for
-- all journals of that version. sqlite3 journal.db < version-1.sql
BEGIN TRANSACTION;
CREATE TABLE event (
        id INTEGER PRIMARY KEY,
        stop INTEGER NOT NULL REFERENCES stop (id) ON DELETE CASCADE,
        at_s REAL NOT NULL,
        wall_s REAL NOT NULL,
        kind TEXT NOT NULL,
        data TEXT NOT NULL,
        intent TEXT
    ) STRICT;
INSERT INTO "event" VALUES(1,1,3269.608509926,1.79530025186028289792e+09,'started','{"ladder": [{"id": "15@", "means": "SIGTERM", "wait_s": null, "consent": "none", "repeatable": false, "audience": ""}, {"id": "9@", "means": "SIGKILL", "wait_s": 10.0, "consent": "force", "repeatable": false, "audience": ""}], "deadline_s": 3299.608492294, "ceiling_s": 3299.608492294, "consent": null, "findings": [{"code": "no-handler", "title": "SIGTERM would end it at once: work in hand would be lost", "severity": "warning", "confidence": "certain", "evidence": ["/proc/19145/status: SigCgt shows no handler for SIGTERM"], "advice": "let its work finish first, or give the program a handler for SIGTERM"}], "reason": "golden file"}',NULL);
INSERT INTO "event" VALUES(2,1,3269.609670248,1.79530025186144375805e+09,'intended','{"rung": 0, "attempt": 1, "facts": {"members": "19145/326937/51603/15//OTHER", "listeners": ""}}','0:1');
INSERT INTO "event" VALUES(3,1,3269.610322488,1.7953002518621428013e+09,'asked','{"rung": 0, "attempt": 1, "outcome": "done", "detail": "SIGTERM to pid 19145"}',NULL);
INSERT INTO "event" VALUES(4,1,3269.610380153,1.79530025186217188836e+09,'reached','{"stage": "asked", "detail": "SIGTERM to pid 19145"}',NULL);
INSERT INTO "event" VALUES(5,1,3269.610519557,1.7953002518623218536e+09,'ended','{"cause": "of the ask, unhandled", "detail": "died of SIGTERM: it had no handler for it"}',NULL);
INSERT INTO "event" VALUES(6,1,3269.611175726,1.79530025186294889443e+09,'finished','{"ending": "abrupt", "why": "it ended", "detail": "died of SIGTERM: it had no handler for it", "findings": []}',NULL);
INSERT INTO "event" VALUES(7,2,3269.835965565,1.79530025208773851399e+09,'started','{"ladder": [{"id": "15@", "means": "SIGTERM", "wait_s": null, "consent": "none", "repeatable": false, "audience": ""}, {"id": "9@", "means": "SIGKILL", "wait_s": 10.0, "consent": "force", "repeatable": false, "audience": ""}], "deadline_s": 3271.335951261, "ceiling_s": 3271.335951261, "consent": {"reason": "it is in the way", "by": "root (uid 0, pid 19171)", "until_s": null, "unrecorded": true}, "findings": [{"code": "ignored", "title": "SIGTERM: ignored", "severity": "blocker", "confidence": "certain", "evidence": ["/proc/19170/status: SigIgn shows SIGTERM"], "advice": "ask with a signal that the program handles: lastcall signals pid:19170"}], "reason": "it is in the way"}',NULL);
INSERT INTO "event" VALUES(8,2,3269.839169755,1.79530025209094357485e+09,'intended','{"rung": 0, "attempt": 1, "facts": {"members": "19170/326963/51628/15//CPYTHON", "listeners": ""}}','0:1');
INSERT INTO "event" VALUES(9,2,3269.840088884,1.79530025209189796446e+09,'asked','{"rung": 0, "attempt": 1, "outcome": "done", "detail": "SIGTERM to pid 19170"}',NULL);
INSERT INTO "event" VALUES(10,2,3269.84013633,1.79530025209192943568e+09,'reached','{"stage": "asked", "detail": "SIGTERM to pid 19170"}',NULL);
INSERT INTO "event" VALUES(11,2,3270.842097995,1.7953002530939376354e+09,'look-started','{"depth": "quick", "at_deadline_s": null}',NULL);
INSERT INTO "event" VALUES(12,2,3270.870862402,1.79530025312271571159e+09,'reached','{"stage": "delivered", "detail": "the signal has arrived"}',NULL);
INSERT INTO "event" VALUES(13,2,3270.870958712,1.79530025312294507031e+09,'looked','{"depth": "quick", "findings": [{"code": "signal-ignored", "title": "process 19170 ignores SIGTERM: it was thrown away", "severity": "blocker", "confidence": "certain", "evidence": ["/proc/19170/status: SigIgn has SIGTERM"], "advice": "ask with another signal: `lastcall check` tells which it handles"}]}',NULL);
INSERT INTO "event" VALUES(14,2,3271.337141862,1.79530025358898925784e+09,'look-started','{"depth": "deep", "at_deadline_s": 3271.335951261}',NULL);
INSERT INTO "event" VALUES(15,2,3271.384888689,1.79530025363671970374e+09,'looked','{"depth": "deep", "findings": [{"code": "signal-ignored", "title": "process 19170 ignores SIGTERM: it was thrown away", "severity": "blocker", "confidence": "certain", "evidence": ["/proc/19170/status: SigIgn has SIGTERM"], "advice": "ask with another signal: `lastcall check` tells which it handles"}, {"code": "python-stacks", "title": "where the 1 Python thread of process 19170 is", "severity": "note", "confidence": "certain", "evidence": ["thread 19170 sleeps: <module> (<string>:1)"], "advice": ""}, {"code": "open-files", "title": "1 file is open for writing", "severity": "note", "confidence": "certain", "evidence": ["/somewhere 2 bytes, written at 2 (pid 19170)"], "advice": ""}, {"code": "threads", "title": "what its only thread does", "severity": "note", "confidence": "certain", "evidence": ["python3: sleeping in hrtimer_nanosleep"], "advice": ""}]}',NULL);
INSERT INTO "event" VALUES(16,2,3271.385036628,1.79530025363680982583e+09,'intended','{"rung": 1, "attempt": 1, "facts": {"members": "19170/326963/51628/9,15//CPYTHON", "listeners": ""}}','1:1');
INSERT INTO "event" VALUES(17,2,3271.389691359,1.79530025364150905612e+09,'asked','{"rung": 1, "attempt": 1, "outcome": "done", "detail": "SIGKILL to pid 19170"}',NULL);
INSERT INTO "event" VALUES(18,2,3271.390219096,1.79530025364203858371e+09,'ended','{"cause": "taken away", "detail": "killed by SIGKILL"}',NULL);
INSERT INTO "event" VALUES(19,2,3271.390926275,1.79530025364269924166e+09,'finished','{"ending": "forced", "why": "it ended", "detail": "killed by SIGKILL", "findings": [{"code": "signal-ignored", "title": "process 19170 ignores SIGTERM: it was thrown away", "severity": "blocker", "confidence": "certain", "evidence": ["/proc/19170/status: SigIgn has SIGTERM"], "advice": "ask with another signal: `lastcall check` tells which it handles"}, {"code": "python-stacks", "title": "where the 1 Python thread of process 19170 is", "severity": "note", "confidence": "certain", "evidence": ["thread 19170 sleeps: <module> (<string>:1)"], "advice": ""}, {"code": "open-files", "title": "1 file is open for writing", "severity": "note", "confidence": "certain", "evidence": ["/somewhere 2 bytes, written at 2 (pid 19170)"], "advice": ""}, {"code": "threads", "title": "what its only thread does", "severity": "note", "confidence": "certain", "evidence": ["python3: sleeping in hrtimer_nanosleep"], "advice": ""}]}',NULL);
INSERT INTO "event" VALUES(20,3,3271.613424514,1.79530025386519765848e+09,'started','{"ladder": [{"id": "15@", "means": "SIGTERM", "wait_s": null, "consent": "none", "repeatable": false, "audience": ""}, {"id": "9@", "means": "SIGKILL", "wait_s": 10.0, "consent": "force", "repeatable": false, "audience": ""}], "deadline_s": 3301.61341178, "ceiling_s": 3301.61341178, "consent": null, "findings": [{"code": "handled", "title": "the program handles SIGTERM itself; whether work survives is up to it", "severity": "note", "confidence": "certain", "evidence": ["/proc/19308/status: SigCgt shows SIGTERM"], "advice": ""}], "reason": ""}',NULL);
INSERT INTO "event" VALUES(21,3,3271.614974498,1.79530025386674761773e+09,'intended','{"rung": 0, "attempt": 1, "facts": {"members": "19308/327141/51766/15/15/CPYTHON", "listeners": ""}}','0:1');
INSERT INTO "event" VALUES(22,3,3271.619360902,1.79530025387119650847e+09,'asked','{"rung": 0, "attempt": 1, "outcome": "done", "detail": "SIGTERM to pid 19308"}',NULL);
INSERT INTO "event" VALUES(23,3,3271.619436387,1.79530025387122583384e+09,'reached','{"stage": "asked", "detail": "SIGTERM to pid 19308"}',NULL);
INSERT INTO "event" VALUES(24,3,3271.622456931,1.79530025387428092951e+09,'ended','{"cause": "by itself", "detail": "exit status 0"}',NULL);
INSERT INTO "event" VALUES(25,3,3271.623116187,1.7953002538748891354e+09,'finished','{"ending": "orderly", "why": "it ended", "detail": "exit status 0", "findings": []}',NULL);
INSERT INTO "event" VALUES(26,4,3271.809612451,1.79530025406138539316e+09,'started','{"ladder": [{"id": "15@", "means": "SIGTERM", "wait_s": null, "consent": "none", "repeatable": false, "audience": ""}, {"id": "9@", "means": "SIGKILL", "wait_s": 10.0, "consent": "force", "repeatable": false, "audience": ""}], "deadline_s": 3301.809598671, "ceiling_s": 3301.809598671, "consent": null, "findings": [{"code": "ignored", "title": "SIGTERM: ignored", "severity": "blocker", "confidence": "certain", "evidence": ["/proc/19340/status: SigIgn shows SIGTERM"], "advice": "ask with a signal that the program handles: lastcall signals pid:19340"}], "reason": ""}',NULL);
INSERT INTO "event" VALUES(27,4,3271.811527957,1.79530025406330156329e+09,'intended','{"rung": 0, "attempt": 1, "facts": {"members": "19340/327164/51798/15//CPYTHON", "listeners": ""}}','0:1');
INSERT INTO "event" VALUES(28,4,3271.812024556,1.79530025406383752823e+09,'asked','{"rung": 0, "attempt": 1, "outcome": "done", "detail": "SIGTERM to pid 19340"}',NULL);
INSERT INTO "event" VALUES(29,4,3271.812074468,1.79530025406386590006e+09,'reached','{"stage": "asked", "detail": "SIGTERM to pid 19340"}',NULL);
INSERT INTO "event" VALUES(30,4,3272.361370557,1.79530025461324548724e+09,'released','{"by": "SIGINT to lastcall"}',NULL);
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
INSERT INTO "stop" VALUES(1,1,'pid:19145','sleep 600','process:11111111-2222-4333-8444-555555555555/19145/326937/51603','{"pid": 19145, "start_ticks": 326937, "boot_id": "11111111-2222-4333-8444-555555555555", "inode": 51603, "scope": "one"}',1.79530025186028289792e+09,'root (uid 0, pid 19146)',NULL,'abrupt','ENDED');
INSERT INTO "stop" VALUES(2,2,'pid:19170','python3 -c import signal,time; signal.signal(15, signal.SIG_IGN); print…','process:11111111-2222-4333-8444-555555555555/19170/326963/51628','{"pid": 19170, "start_ticks": 326963, "boot_id": "11111111-2222-4333-8444-555555555555", "inode": 51628, "scope": "one"}',1.79530025208773851399e+09,'root (uid 0, pid 19171)',NULL,'forced','ENDED');
INSERT INTO "stop" VALUES(3,3,'pid:19308','python3 -c import signal,time,sys; signal.signal(15, lambda *a: sys.exi…','process:11111111-2222-4333-8444-555555555555/19308/327141/51766','{"pid": 19308, "start_ticks": 327141, "boot_id": "11111111-2222-4333-8444-555555555555", "inode": 51766, "scope": "one"}',1.79530025386519765848e+09,'root (uid 0, pid 19317)',NULL,'orderly','ENDED');
INSERT INTO "stop" VALUES(4,4,'pid:19340','python3 -c import signal,time; signal.signal(15, signal.SIG_IGN); print…','process:11111111-2222-4333-8444-555555555555/19340/327164/51798','{"pid": 19340, "start_ticks": 327164, "boot_id": "11111111-2222-4333-8444-555555555555", "inode": 51798, "scope": "one"}',1.79530025406138539316e+09,'root (uid 0, pid 19343)',NULL,NULL,NULL);
CREATE UNIQUE INDEX one_open_stop ON stop (identity_key) WHERE ending IS NULL;
CREATE INDEX events_of_stop ON event (stop, id);
CREATE UNIQUE INDEX one_intent ON event (stop, intent) WHERE intent IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('stop',4);

PRAGMA application_id = 1818325876;
PRAGMA user_version = 1;
COMMIT;
