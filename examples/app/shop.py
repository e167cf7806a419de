"""A web shop that is stopped under load and loses nothing.

    uvicorn shop:app

FastAPI, a database pool, background tasks, a job that runs as long as the shop, a WebSocket and
server-sent events. What lastcall does for it is marked with (1) to (6).
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy import event, func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lastcall import Lifecycle

# (1) One for the process, made before all else. 25 s are less than the 30 s of Kubernetes.
lifecycle = Lifecycle("shop", grace_s=25)


class Table(DeclarativeBase):
    """All tables of the shop have a number."""

    number: Mapped[str] = mapped_column(primary_key=True)


class Payment(Table):
    """Taken before the order is made: between the two, a stop would cost a customer money."""

    __tablename__ = "payments"


class Order(Table):
    """Paid, and made."""

    __tablename__ = "orders"


class Receipt(Table):
    """Sent by a background task, once the customer has the answer."""

    __tablename__ = "receipts"


class Invoice(Table):
    """Written by the job that runs as long as the shop."""

    __tablename__ = "invoices"


class Picture(Table):
    """Uploaded."""

    __tablename__ = "pictures"
    size_bytes: Mapped[int]


class Article(Table):
    """In a basket, put there over a WebSocket."""

    __tablename__ = "articles"


pool = create_async_engine(f"sqlite+aiosqlite:///{os.environ.get('SHOP_DATABASE', 'shop.db')}")
sessions = async_sessionmaker(pool)
unwritten = asyncio.Queue[str]()


@event.listens_for(pool.sync_engine, "connect")
def _prepare(connection: Any, _: object) -> None:  # noqa: ANN401 (the driver's)
    # SQLite: readers go on beside a writer, and writers wait for each other.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA busy_timeout = 20000")


async def save(row: Table) -> None:
    """In a transaction of its own."""
    async with sessions.begin() as session:
        session.add(row)


async def orders_to_invoice() -> AsyncIterator[str]:
    """One after the other, as they come."""
    while True:
        yield await unwritten.get()


async def write_invoices() -> None:
    """The job. (2) It takes no new order once the shop drains; the one in hand is finished."""
    async for number in lifecycle.until_draining_async(orders_to_invoice()):
        async with lifecycle.work(f"invoice {number}"):
            await save(Invoice(number=number))


@asynccontextmanager
async def open_shop(shop: FastAPI) -> AsyncIterator[None]:
    """What the shop needs before its first customer."""
    async with pool.begin() as connection:
        await connection.run_sync(Table.metadata.create_all)
    shop.state.job = asyncio.create_task(write_invoices())
    yield  # what stands behind it runs at the end of the drain, before the hooks below


# (3) In order: whoever is in is served (the drain), then the job, the pool, the logs.
@lifecycle.on("work")
async def finish_invoices() -> None:
    """Requests that were finished during the drain have ordered some more."""
    await api.state.job
    while not unwritten.empty():
        await save(Invoice(number=unwritten.get_nowait()))


@lifecycle.on("close")
async def close_pool() -> None:
    """On the event loop, which is there until the last hook has ended."""
    await pool.dispose()


@lifecycle.on("flush")
def say_goodbye() -> None:
    """The place for telemetry and logs."""
    print(f"the shop is closed, {unwritten.qsize()} invoices are unwritten", flush=True)


api = FastAPI(lifespan=open_shop)


@api.post("/orders/{number}")
async def order(number: str, background: BackgroundTasks, takes_s: float = 0) -> dict[str, str]:
    """Take the payment, then make the order, however long it takes."""
    await save(Payment(number=number))
    await asyncio.sleep(takes_s)
    await save(Order(number=number))
    background.add_task(save, Receipt(number=number))  # (4) part of the request: waited for
    unwritten.put_nowait(number)
    return {"ordered": number}


@api.put("/pictures/{number}")
async def upload(number: str, request: Request) -> dict[str, int]:
    """Take a picture of whatever size, piece by piece."""
    size_bytes = 0
    async for piece in request.stream():
        size_bytes += len(piece)
    await save(Picture(number=number, size_bytes=size_bytes))
    return {"bytes": size_bytes}


async def sold() -> AsyncIterator[int]:
    """How many orders there are; without end."""
    while True:
        async with sessions() as session:
            yield await session.scalar(select(func.count()).select_from(Order)) or 0
        await asyncio.sleep(0.1)


@api.get("/sold", response_class=EventSourceResponse)
async def tell_sold() -> AsyncIterator[ServerSentEvent]:
    """Server-sent events. (5) The stream ends by itself once the shop drains, with a last word."""
    async for count in lifecycle.until_draining_async(sold()):
        yield ServerSentEvent(data=count)
    yield ServerSentEvent(event="closing", data="come back in a moment", retry=1000)


@api.websocket("/basket")
async def basket(socket: WebSocket, takes_s: float = 0) -> None:
    """Each message is an article. When the shop drains, it is closed as soon as it is idle."""
    await socket.accept()
    async for number in socket.iter_text():
        await asyncio.sleep(takes_s)
        await save(Article(number=number))
        await socket.send_text(number)


# (6) Around everything, so that nothing is missed: what the server runs is `app`.
app = lifecycle.asgi(api, ready="/readyz", live="/livez")
