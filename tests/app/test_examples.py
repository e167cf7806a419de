"""The programs in examples/app, drilled: what the pages of docs/frameworks promise."""

from __future__ import annotations

import http.client
import re
import sqlite3
import subprocess
from typing import TYPE_CHECKING

import pytest

import pages
from app.example_drills import EXAMPLES, acknowledged, served, server, short, sound
from drill.experiments import told
from lastcall.drill.history import Kind
from lastcall.drill.scenario import Load, Newcomers, Request, Scenario, State

if TYPE_CHECKING:
    from pathlib import Path

    from lastcall.drill.experiment import Drilled

FRAMEWORKS = EXAMPLES.parent.parent / "docs" / "frameworks"
SHOP = ("shop:app", "--port", "{port}")
GUEST, MODULE = server("uvicorn", *SHOP), server("lastcall.app.servers.uvicorn", *SHOP)
UPLOADS = (Kind.HALF_BODY, Kind.EXPECT_CONTINUE)
SOCKETS = (Kind.WEBSOCKET_IDLE, Kind.WEBSOCKET_ECHO)
ORDERS = tuple(set(Kind) - {*UPLOADS, *SOCKETS, Kind.EVENTS})
CLOSED = "clients are closed"
# Each example by the servers that its page names.
SERVED = {
    "with_fastapi by uvicorn": server("uvicorn", "with_fastapi:app", "--port", "{port}"),
    "with_fastapi by uvicorn's module": server(
        "lastcall.app.servers.uvicorn", "with_fastapi:app", "--port", "{port}"
    ),
    "with_fastapi by gunicorn": server(
        "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:{port}",
        "with_fastapi:app",
    ),
    "with_fastapi by daphne": server("daphne", "-p", "{port}", "with_fastapi:app"),
    "with_fastapi by hypercorn's module": server(
        "lastcall.app.servers.hypercorn", "-b", "127.0.0.1:{port}", "with_fastapi:app"
    ),
    "with_litestar by uvicorn": server("uvicorn", "with_litestar:app", "--port", "{port}"),
    "with_litestar by granian's module": server(
        "lastcall.app.servers.granian", "--interface", "asgi", "--port", "{port}",
        "with_litestar:app",
    ),
    "django_asgi by uvicorn": server("uvicorn", "django_asgi:application", "--port", "{port}"),
    "django_asgi by uvicorn's module": server(
        "lastcall.app.servers.uvicorn", "django_asgi:application", "--port", "{port}"
    ),
    "django_wsgi by gunicorn": server(
        "gunicorn", "-k", "gthread", "--threads", "8", "-b", "127.0.0.1:{port}",
        "django_wsgi:application",
    ),
    "django_wsgi by gunicorn's module": server(
        "lastcall.app.servers.gunicorn", "-k", "gthread", "--threads", "8", "-b",
        "127.0.0.1:{port}", "django_wsgi:application",
    ),
    "with_flask by gunicorn": server(
        "gunicorn", "-k", "gthread", "--threads", "8", "-b", "127.0.0.1:{port}", "with_flask:app"
    ),
    "with_flask by waitress": server(
        "waitress", "--listen=127.0.0.1:{port}", "--threads=8", "with_flask:app"
    ),
    "with_flask by waitress's module": server(
        "lastcall.app.servers.waitress", "--listen=127.0.0.1:{port}", "with_flask:app"
    ),
    "with_aiohttp by its module": server(
        "lastcall.app.servers.aiohttp", "-H", "127.0.0.1", "-P", "{port}", "with_aiohttp:make_app"
    ),
}  # fmt: skip


def busy() -> Scenario:
    """A shop full of customers, in every state that it can be in, and more all the time."""
    order = Request("/orders/{key}", "POST")
    slow = Request("/orders/{key}?takes_s=1.2", "POST")
    picture = Request("/pictures/{key}", "PUT", (), b"lastcall " * 4000)
    article = Request("/basket?takes_s=1.2&key={key}")
    states = (
        State(Kind.IDLE_THEN_REQUEST, order, 2, 0.2),
        State(Kind.SILENT, order, 2, 0.2),
        State(Kind.HALF_LINE, order, 2, 0.3),
        State(Kind.HALF_HEADERS, order, 2, 0.3),
        State(Kind.HALF_BODY, picture, 2, 0.5),
        State(Kind.EXPECT_CONTINUE, picture, 2, 0.5),
        State(Kind.PIPELINED, slow, 2, second=order),
        State(Kind.BACKLOG, order, 3),
        State(Kind.EVENTS, Request("/sold"), 3),
        State(Kind.WEBSOCKET_IDLE, Request("/basket"), 2, 10.0),
        State(Kind.WEBSOCKET_ECHO, article, 2, message="{key}"),
        State(Kind.IN_HANDLER, slow, 8),
    )
    return Scenario(states, Newcomers(order, 20.0), Load(order, 30.0, 8))


def database(folder: Path) -> dict[str, str]:
    """Where the shop is to keep its books."""
    return {"SHOP_DATABASE": str(folder / "shop.db")}


def rows(books: Path, table: str) -> set[str]:
    """What a table of the shop holds, without what the drill sent to warm connections up."""
    with sqlite3.connect(f"file:{books}?mode=ro", uri=True) as connection:
        found = {number for (number,) in connection.execute(f"SELECT number FROM {table}")}  # noqa: S608 (ours)
    connection.close()
    return {number for number in found if not number.endswith("-warm")}


def check_books(drilled: Drilled, folder: Path) -> None:
    """The database holds what was acknowledged, and nothing else, and nothing by halves."""
    assert not (folder / "shop.db-wal").exists(), "the pool was not closed"
    books = folder / "shop.db"
    orders = rows(books, "orders")
    assert orders == set(acknowledged(drilled, *ORDERS))
    assert rows(books, "payments") == orders
    assert rows(books, "receipts") == orders
    assert rows(books, "invoices") == orders
    assert rows(books, "pictures") == set(acknowledged(drilled, *UPLOADS))
    assert rows(books, "articles") == set(acknowledged(drilled, Kind.WEBSOCKET_ECHO))


@pytest.mark.parametrize("command", [GUEST, MODULE], ids=["plain", "module"])
def test_the_shop_is_stopped_under_load_and_loses_nothing(command: tuple[str, ...]) -> None:
    """Orders, uploads, baskets, streams, background tasks, the job: what was begun is done."""

    def check(drilled: Drilled, folder: Path) -> None:
        assert drilled.result.keeps_its_word, told(drilled.result)
        check_books(drilled, folder)

    drilled = sound(command, busy(), database, check)
    assert not drilled.result.judgement.not_reached, told(drilled.result)
    assert "the shop is closed, 0 invoices are unwritten" in drilled.result.aftermath.output


def test_the_books_do_not_balance_without_lastcall(tmp_path: Path) -> None:
    """The checker fails for the same shop whose middleware and hooks were taken out."""
    text = (EXAMPLES / "shop.py").read_text()
    bare = re.sub(r"@lifecycle\.on\(.*\)\n", "", text).replace(
        'lifecycle.asgi(api, ready="/readyz", live="/livez")', "api"
    )
    (tmp_path / "bare.py").write_text(bare)
    command = server("uvicorn", "bare:app", "--port", "{port}", "--app-dir", str(tmp_path),
                     "--timeout-graceful-shutdown", "0")  # fmt: skip

    def check(drilled: Drilled, folder: Path) -> None:
        with pytest.raises(AssertionError):
            check_books(drilled, folder)
        books = folder / "shop.db"
        assert rows(books, "payments") - rows(books, "orders"), "nobody paid in vain"

    drilled = sound(command, busy(), database, check)
    assert not drilled.result.keeps_its_word


@pytest.mark.parametrize("module", ["uvicorn", "lastcall.app.servers.uvicorn"])
def test_an_endless_stream_of_events_ends_with_a_last_word(module: str, tmp_path: Path) -> None:
    """A client that listens is told to come back, and its stream is whole."""
    env = {"SHOP_DATABASE": str(tmp_path / "shop.db"), "LASTCALL_STATE_DIR": str(tmp_path / "s")}
    with served(module, "shop:app", env) as (child, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/sold")
        answer = connection.getresponse()
        assert answer.readline() == b"data: 0\n"
        child.terminate()
        heard = answer.read()  # raises IncompleteRead when it is cut short
        connection.close()
        child.wait(30)
    assert heard.endswith(b'event: closing\ndata: "come back in a moment"\nretry: 1000\n\n')


@pytest.mark.parametrize("name", SERVED)
def test_a_framework_is_stopped_and_loses_nothing(name: str) -> None:
    """In hand, newcomers, idle connections: all are served or refused cleanly; the hooks run."""
    slow = "/areport" if name.startswith("django_asgi") else "/report"
    drilled = sound(SERVED[name], short(slow, "/"))
    assert drilled.result.keeps_its_word, told(drilled.result)
    assert not drilled.result.judgement.not_reached, told(drilled.result)
    output = drilled.result.aftermath.output
    assert [line for line in output if CLOSED in line] == [CLOSED], told(drilled.result)


@pytest.mark.parametrize("program", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_each_program_stands_whole_in_a_page(program: str) -> None:
    """What a reader copies from a page is what was drilled."""
    text = (EXAMPLES / program).read_text().rstrip("\n")
    blocks = [b for page in FRAMEWORKS.glob("*.md") for b in pages.read(page.read_text())[1]]
    assert [b for b in blocks if b.text == text], f"put {program} into a page of docs/frameworks"


def test_handlers_in_threads_do_not_hold_the_end(tmp_path: Path) -> None:
    """The idle threads of `def` handlers end with the server's loop: nobody waits for them."""
    (tmp_path / "threads.py").write_text(
        "from fastapi import FastAPI\n"
        "from lastcall import Lifecycle\n"
        "lifecycle = Lifecycle()\n"
        "api = FastAPI()\n"
        "@api.get('/')\n"
        "def fast() -> str:\n"
        "    return 'ok'\n"
        "@lifecycle.listen\n"
        "def told(what, words):\n"
        "    if what == 'ended':\n"
        "        print('cut off:', lifecycle.report.cut, flush=True)\n"
        "app = lifecycle.asgi(api)\n"
    )
    env = {"LASTCALL_STATE_DIR": str(tmp_path)}
    with served("uvicorn", "threads:app", env, tmp_path, stdout=subprocess.PIPE) as (child, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b'"ok"'
        connection.close()
        child.terminate()
        output, _ = child.communicate(timeout=60)
    assert "cut off: []" in output.decode()
