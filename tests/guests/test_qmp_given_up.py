"""An agent that is given up in the moment when it answers."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import TYPE_CHECKING

from lastcall.targets.guest.qmp import agent

if TYPE_CHECKING:
    from pathlib import Path


def test_what_comes_when_it_is_given_up_is_heard(tmp_path: Path) -> None:
    """An answer and the end of the patience in one turn of the loop: the answer is not lost."""
    path, said = str(tmp_path / "agent"), threading.Event()

    def serve() -> None:
        with listener.accept()[0] as talk:
            assert talk.recv(4096)
            talk.sendall(b'\xff{"return": 1}\n')
            said.set()
            assert not talk.recv(4096)

    def stall() -> None:
        """As a machine under load does, or the work for another guest."""
        assert said.wait(10)
        time.sleep(0.02)

    async def main() -> None:
        given_up = agent.GivenUp()
        asyncio.get_running_loop().call_soon(stall)
        assert (await agent.sight(path, 0.01, given_up)).answers is False
        heard = await given_up.over(5)
        given_up.close()
        assert heard

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        agents = threading.Thread(target=serve)
        agents.start()
        try:
            asyncio.run(main())
        finally:
            agents.join()
