"""The guest agent through its own socket: what it says, and what it must not be able to do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from guests import peers
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.qmp import agent
from lastcall.targets.guest.words import AgentSight, System

if TYPE_CHECKING:
    from pathlib import Path

WINDOWS = {"id": "mswindows", "pretty-name": "Windows Server 2022 Standard"}
REFUSED = {"error": {"class": "CommandNotFound", "desc": "no such command"}}


def agent_of(answers: dict[str, Any], before: bytes = b"") -> peers.Handler:
    """An agent that gets in step and answers from a table; None: with silence."""

    async def serve(reader: peers.Reader, writer: peers.Writer) -> None:
        commands = peers.Commands(reader)
        while (command := await commands.next()) is not None:
            name = command["execute"]
            if name == "guest-sync-delimited":
                writer.write(before + b"\xff")
                peers.say(writer, {"return": command["arguments"]["id"]})
            elif isinstance(answers.get(name), bytes):
                writer.write(answers[name])
            elif answers.get(name) is not None:
                peers.say(writer, answers[name])

    return serve


def _sight(path: Path, handler: peers.Handler, limit_s: float = 0.5) -> AgentSight:
    async def main() -> AgentSight:
        async with peers.listening(path / "agent", handler) as at:
            return await agent.sight(at, limit_s)

    return asyncio.run(main())


def test_an_agent_that_answers(tmp_path: Path) -> None:
    """It tells its system and who is logged on; stale words before that are skipped."""
    answers = {
        "guest-get-osinfo": {"return": WINDOWS},
        "guest-get-users": {"return": [{"user": "Admin", "domain": "WIN", "login-time": 1.5}]},
    }
    seen = _sight(tmp_path, agent_of(answers, b'half{"return": 3}\n'))
    assert seen == AgentSight(
        connected=True,
        answers=True,
        system=System.WINDOWS,
        name="Windows Server 2022 Standard",
        users=("WIN\\Admin",),
    )


def test_an_old_agent(tmp_path: Path) -> None:
    """One that knows fewer questions still answers; what is not known is named."""
    seen = _sight(tmp_path, agent_of({"guest-get-osinfo": REFUSED, "guest-get-users": REFUSED}))
    assert (seen.answers, seen.system, seen.users) == (True, System.UNKNOWN, None)
    assert "guest-get-osinfo" in seen.detail
    assert "guest-get-users" in seen.detail


@pytest.mark.parametrize(
    ("handler", "answers", "word"),
    [
        (peers.silent, False, "did not answer within"),
        (peers.saying(b'{"return": 1}\n'), False, "did not answer within"),
        (peers.saying(closes=True), None, "was closed"),
        (peers.saying(b"\xff" + b"x" * 600_000), None, "longer than 256 KiB"),
        (peers.endlessly(b'{"return": 1}\n' * 100), None, "does not stop talking"),
        (peers.saying(b"\xff[1]\n"), None, "no JSON object"),
        (peers.saying(b"\xff\xc3\x28\n"), None, "no JSON"),
        (agent_of({"guest-get-osinfo": b"x\n"}), True, "no JSON"),
        (agent_of({"guest-get-osinfo": {"return": []}}), True, "makes no sense"),
        (agent_of({"guest-get-osinfo": {"return": {"id": 7}}}), True, "makes no sense"),
        (agent_of({"guest-get-osinfo": {"error": 7}}), True, "makes no sense"),
        (
            agent_of({"guest-get-osinfo": {"return": WINDOWS}, "guest-get-users": {"return": 7}}),
            True,
            "makes no sense",
        ),
    ],
)
def test_bad_agents(
    tmp_path: Path,
    handler: peers.Handler,
    answers: bool | None,  # noqa: FBT001 (a table)
    word: str,
) -> None:
    """An agent that hangs, lies or floods is told from one that works, in bounded time."""
    seen = _sight(tmp_path, handler)
    assert (seen.answers, word in seen.detail) == (answers, True), seen


def test_nobody_listens(tmp_path: Path) -> None:
    """Without its socket nothing is known, and the detail says why."""
    seen = asyncio.run(agent.sight(str(tmp_path / "none"), 0.5))
    assert seen.answers is None
    assert str(tmp_path / "none") in seen.detail


def test_one_that_is_given_up_is_heard_out(tmp_path: Path) -> None:
    """Nobody hangs up on a slow answer; until it has come nobody else asks; then all is well."""
    slow = asyncio.Event()
    hung_up_on: list[bool] = []
    table = agent_of({"guest-get-osinfo": {"return": WINDOWS}, "guest-get-users": {"return": []}})

    async def serve(reader: peers.Reader, writer: peers.Writer) -> None:
        if slow.is_set():
            return await table(reader, writer)
        command = await peers.Commands(reader).next()
        assert command is not None
        await slow.wait()
        hung_up_on.append(reader.at_eof())
        writer.write(b"\xff")
        return peers.say(writer, {"return": command["arguments"]["id"]})

    async def main() -> None:
        given_up = agent.GivenUp()
        async with peers.listening(tmp_path / "agent", serve) as at:
            seen = await agent.sight(at, 0.2, given_up)
            assert (seen.answers, "did not answer within" in seen.detail) == (False, True)
            assert not await given_up.over(0.1)
            seen = await agent.sight(at, 0.2, given_up)
            assert (seen.answers, "an earlier question" in seen.detail) == (False, True)
            slow.set()
            assert await given_up.over(10)
            assert (await agent.sight(at, 5, given_up)).answers is True
            given_up.close()

    asyncio.run(main())
    assert hung_up_on == [False]


def test_one_that_is_given_up_for_good_is_closed(tmp_path: Path) -> None:
    """With the guest's machine closed nothing of the talk is left."""
    ended = asyncio.Event()

    async def serve(reader: peers.Reader, _: peers.Writer) -> None:
        await reader.read()
        ended.set()

    async def main() -> None:
        given_up = agent.GivenUp()
        async with peers.listening(tmp_path / "agent", serve) as at:
            assert (await agent.sight(at, 0.1, given_up)).answers is False
            given_up.close()
            await asyncio.wait_for(ended.wait(), 10)

    asyncio.run(main())


def test_shutdown_is_over_when_its_port_closes(tmp_path: Path) -> None:
    """An agent that ends is not waited for any longer."""
    left = asyncio.Event()

    async def serve(reader: peers.Reader, writer: peers.Writer) -> None:
        commands = peers.Commands(reader)
        sync = await commands.next()
        assert sync is not None
        writer.write(b"\xff")
        peers.say(writer, {"return": sync["arguments"]["id"]})
        assert await commands.next() is not None
        left.set()
        await reader.read()

    async def main() -> None:
        async with peers.listening(tmp_path / "agent", serve) as at:
            await asyncio.wait_for(agent.shutdown(at, 3600, left=left), 10)

    asyncio.run(main())


def test_shutdown_harms_no_other_talk(tmp_path: Path) -> None:
    """Another guest's talk that begins in the very turn in which this one ends is heard."""
    left = asyncio.Event()
    one = agent_of({})
    other = agent_of({"guest-get-osinfo": {"return": WINDOWS}, "guest-get-users": {"return": []}})

    async def main() -> None:
        async with (
            peers.listening(tmp_path / "a", one) as a,
            peers.listening(tmp_path / "b", other) as b,
        ):
            asyncio.get_running_loop().call_later(0.2, left.set)
            await agent.shutdown(a, 3600, left=left)
            assert (await agent.sight(b)).answers is True

    asyncio.run(main())


def test_shutdown_asks_for_power_off(tmp_path: Path) -> None:
    """The agent is asked to power off; its silence and its closing port are success."""
    asked: list[dict[str, Any]] = []

    async def serve(reader: peers.Reader, writer: peers.Writer) -> None:
        commands = peers.Commands(reader)
        sync = await commands.next()
        assert sync is not None
        writer.write(b"\xff")
        peers.say(writer, {"return": sync["arguments"]["id"]})
        command = await commands.next()
        assert command is not None
        asked.append(command)

    async def main() -> None:
        async with peers.listening(tmp_path / "agent", serve) as at:
            await agent.shutdown(at)

    asyncio.run(main())
    assert asked == [{"execute": "guest-shutdown", "arguments": {"mode": "powerdown"}}]


@pytest.mark.parametrize(
    ("handler", "fault"),
    [
        (peers.silent, Fault.HUNG),
        (agent_of({"guest-shutdown": REFUSED}), Fault.REFUSED),
        (peers.saying(closes=True), Fault.BROKEN),
    ],
)
def test_shutdown_that_fails(
    tmp_path: Path, handler: peers.Handler, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that is dead, or says no, is told."""
    monkeypatch.setattr(agent, "SYNC_S", 0.3)

    async def main() -> None:
        async with peers.listening(tmp_path / "agent", handler) as at:
            with pytest.raises(Trouble) as raised:
                await agent.shutdown(at, 5.0)
            assert raised.value.fault is fault

    asyncio.run(main())
