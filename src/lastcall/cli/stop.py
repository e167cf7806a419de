"""`lastcall stop TARGET...`: ask, watch, explain; at the deadline leave, or force with consent."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lastcall.cli import guests
from lastcall.cli.room import make_room
from lastcall.errors import Ambiguous, BadPolicy, ExitCode, LastcallError, UsageError, gravest
from lastcall.model import GUESTS, Address, Identity

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import TypeAlias

    from lastcall.cli.views import View
    from lastcall.stop.news import Result
    from lastcall.stop.operation import Operation
    from lastcall.stop.policy import Policy
    from lastcall.targets.base import Target
    from lastcall.targets.open import Wish

    Work: TypeAlias = Callable[[Operation], Awaitable[list[Result]]]

EPILOG = """\
A target is written kind:name:
  pid:4242  pidfile:run/x.pid  port:8080  port:127.0.0.1:8080  name:nginx
  qmp:run/vm.sock  qmp:127.0.0.1:4444  libvirt:web1 (with --connect URI)

Exit code, with several targets the gravest:
  0 orderly             3 nothing to stop    4 not permitted   5 refused
  10 abrupt (no handler ran, work lost)      11 forced         12 killed from outside
  13 crashed            14 hibernated        15 rebooted       16 panicked
  20 still running      21 unknown           22 cut off by itself
  130 you stopped watching

Ctrl+C stops watching and leaves the target alone; `lastcall resume` comes back.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stop`."""
    parser.epilog = EPILOG
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="what to stop, kind:name")
    add_policy(parser).add_argument(
        "--at-once", metavar="N", type=int, help="how many are brought down at the same time"
    )
    ask = parser.add_argument_group("how to ask a process")
    one = ask.add_mutually_exclusive_group()
    one.add_argument("--signal", metavar="SIG", help="the signal to ask with (default TERM)")
    one.add_argument(
        "--signals", metavar="SEQ", help="a sequence, such as INT:5s,TERM:20s: each with its wait"
    )
    reach = ask.add_mutually_exclusive_group()
    reach.add_argument("--tree", action="store_true", help="its descendants too")
    reach.add_argument("--group", action="store_true", help="its whole process group")
    ask.add_argument(
        "--children",
        choices=("last", "first"),
        help="with --tree: after the process itself (default), or before it",
    )
    ask.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=("init", "ancestor", *guests.ALLOW),
        help="init, ancestor: stop pid 1, or a process that this command runs under, all the same;"
        " a guest: wake it from sleep, resume it after a pause, read its monitor over libvirt"
        " (which taints it)",
    )
    guests.add_asks(parser.add_argument_group("virtual machines"))
    add_output(parser)


def add_policy(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The options that say how long and how far, shared with `resume`; returns their group."""
    group = parser.add_argument_group("how long, and how far")
    group.add_argument(
        "--grace", metavar="TIME", help="how long it may take (default 30s, guests 2min)"
    )
    group.add_argument(
        "--force",
        action="store_true",
        help="consent: when the grace has run out, take it away (SIGKILL; a guest: a power cut)",
    )
    group.add_argument("--reason", metavar="TEXT", default="", help="why, for the record")
    group.add_argument(
        "--extend-up-to",
        metavar="TIME",
        help="a target that reports progress may take this long in all",
    )
    policy = group.add_argument("--policy", metavar="FILE", help="a TOML file with a table [stop]")
    vars(policy)["complete"] = {"bash": "_shtab_compgen_files", "zsh": "_files"}
    return group


def add_output(parser: argparse.ArgumentParser) -> None:
    """The options that say what is shown, shared with `resume`."""
    output = parser.add_argument_group("output").add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON object a line")
    output.add_argument("--quiet", "-q", action="store_true", help="errors only")


def run(arguments: argparse.Namespace) -> int:
    """Stop the targets; returns the gravest exit code."""
    from dataclasses import replace

    from lastcall.stop.policy import whole_grace_s

    policy = policy_of(arguments)
    wish = _wish(arguments)
    waits = sum(wait_s or 0.0 for _, wait_s in wish.signals[:-1])
    if policy.grace_s is not None and policy.grace_s < waits:
        raise BadPolicy(
            f"the grace of {policy.grace_s:g} s is over before the last signal is sent,"
            f" after {waits:g} s",
            "give a longer --grace, or leave it out: a sequence brings its own",
        )
    wish = replace(wish, grace_s=whole_grace_s(policy.grace_s, [wait for _, wait in wish.signals]))
    addresses = _addresses(arguments)
    if not addresses:
        return _nothing_runs(arguments)
    guests.check_lengths(arguments, policy, addresses)
    processes = [address for address in addresses if address.kind not in GUESTS]
    families = arguments.tree or arguments.group
    make_room(len(addresses), families=families, guests=len(addresses) - len(processes))
    targets, failed = _open_all(processes, wish, ask=_may_ask(arguments))

    async def work(operation: Operation) -> list[Result]:
        if len(processes) == len(addresses):
            return await operation.stop(targets)
        machines = [address for address in addresses if address.kind in GUESTS]
        batches = guests.opening(machines, guests.wish_of(arguments))
        first, absent = await anext(batches)
        for result in absent:
            operation.over(result)

        async def later() -> AsyncIterator[list[Target]]:
            async for opened, failing in batches:
                for result in failing:
                    operation.over(result)
                absent.extend(failing)
                yield opened

        return [*(await operation.stop([*targets, *first], later())), *absent]

    return carry_out(arguments, policy, work, failed=failed, targets=len(addresses))


def _addresses(arguments: argparse.Namespace) -> list[Address]:
    """What is to be stopped, nobody twice.

    Raises:
        UsageError: nothing is named, or an option fits none of the targets.
    """
    if arguments.at_once is not None and arguments.at_once < 1:
        raise UsageError("--at-once takes a number from 1 on")
    if arguments.all:
        if arguments.targets:
            raise UsageError("--all stops every guest", "leave out the names, or --all")
        guests.refuse_stray_options(arguments, [Address("libvirt", "all")])
        return guests.everything(arguments.connect)
    if not arguments.targets:
        raise UsageError("nothing to stop is named", "name a target, such as pid:4242, or --all")
    addresses = [Address.parse(text) for text in dict.fromkeys(arguments.targets)]
    guests.refuse_stray_options(arguments, addresses)
    return addresses


def _nothing_runs(arguments: argparse.Namespace) -> int:
    if not arguments.json and not arguments.quiet:
        sys.stdout.write("No guest runs on this host: there is nothing to stop.\n")
    return ExitCode.ORDERLY


def policy_of(arguments: argparse.Namespace) -> Policy:
    """The policy file, if any, with what the command line says on top.

    Raises:
        BadPolicy: something in it makes no sense.
    """
    from lastcall.durations import parse_duration
    from lastcall.stop.policy import Policy, from_table

    base = Policy(reason=arguments.reason)
    if arguments.policy:
        base = from_table(_policy_table(arguments.policy), arguments.reason)
    reason = base.reason
    force = base.force_reason
    if arguments.force:
        force = reason or "asked for on the command line"
    grace, ceiling = arguments.grace, arguments.extend_up_to
    return Policy(
        grace_s=parse_duration(grace) if grace is not None else base.grace_s,
        extend_up_to_s=parse_duration(ceiling) if ceiling is not None else base.extend_up_to_s,
        force_reason=force,
        reason=reason,
    )


def _policy_table(path: str) -> object:
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file).get("stop")
    except OSError as error:
        raise BadPolicy(f"the policy {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadPolicy(f"the policy {path} is not TOML: {error}") from error


def _wish(arguments: argparse.Namespace) -> Wish:
    from lastcall.targets.open import Wish
    from lastcall.targets.process import signals

    asked = arguments.signals if arguments.signals is not None else arguments.signal
    sequence = signals.sequence("TERM" if asked is None else asked)
    if arguments.children and not arguments.tree:
        raise UsageError("--children says in which order a tree is asked", "add --tree")
    scope = "one"
    if arguments.tree:
        scope = f"tree, children {arguments.children or 'last'}"
    elif arguments.group:
        scope = "group"
    return Wish(sequence, scope, frozenset(arguments.allow))


def _may_ask(arguments: argparse.Namespace) -> bool:
    quiet = arguments.json or arguments.quiet
    return not quiet and sys.stdin.isatty() and sys.stderr.isatty()


def _open_all(
    addresses: list[Address], wish: Wish, *, ask: bool
) -> tuple[list[Target], list[Result]]:
    """The targets, nobody twice, and those that there is nothing to stop of."""
    from lastcall.stop.news import Result, Subject
    from lastcall.targets.open import open_target

    targets: list[Target] = []
    failed = []
    for address in addresses:
        try:
            target = _open(address, wish) if ask else open_target(address, wish)
        except UsageError:
            # A typo among several: nothing is asked at all.
            for opened in targets:
                opened.close()
            raise
        except LastcallError as error:
            failed.append(Result(Subject(address, "", Identity("", {})), 0, None, error))
            continue
        targets.append(target)
    return _apart(targets), failed


def _apart(targets: list[Target]) -> list[Target]:
    """Without those that others take with them: nobody is asked twice."""
    taken: set[str] = set()
    parts = {id(target): target.living() for target in targets}
    for target in sorted(targets, key=lambda target: -len(parts[id(target)])):
        mine = parts[id(target)]
        if mine and mine <= taken:
            target.close()
            del parts[id(target)]
        taken |= mine
    return [target for target in targets if id(target) in parts]


def _open(address: Address, wish: Wish) -> Target:
    """As `open_target`, but an ambiguous address is put to the person at the terminal."""
    from lastcall.cli.show import harmless
    from lastcall.targets.open import open_target

    try:
        return open_target(address, wish)
    except Ambiguous as error:
        if not error.candidates:
            raise
        sys.stderr.write(f"{error.what}\n")
        for number, (candidate, label) in enumerate(error.candidates, 1):
            sys.stderr.write(f"  {number}  {candidate}  {harmless(label)}\n")
        sys.stderr.write("Which one? (number, or Enter for none) ")
        sys.stderr.flush()
        answer = sys.stdin.readline().strip()
        if not answer.isdecimal() or not 1 <= int(answer) <= len(error.candidates):
            raise
        return open_target(Address.parse(error.candidates[int(answer) - 1][0]), wish)


def carry_out(
    arguments: argparse.Namespace,
    policy: Policy,
    work: Work,
    *,
    failed: list[Result],
    targets: int,
) -> int:
    """Run an operation with its view; returns the gravest exit code.

    Args:
        arguments: say what is shown.
        policy: what the caller wants.
        work: an async function of the operation that returns its results.
        failed: results that stand already.
        targets: how many targets there are in all.
    """
    import asyncio

    view = _view(arguments, targets)
    for result in failed:
        view.result(result)
    results = list(failed)
    try:
        if len(failed) < targets:
            results += asyncio.run(_watched(arguments, policy, work, view))
    finally:
        view.close()
    return gravest([_code(result) for result in results])


def _view(arguments: argparse.Namespace, targets: int) -> View:
    """The view that the options and the terminal call for."""
    from lastcall.cli.views import CHATTY, JsonView, PlainView, QuietView

    if arguments.json:
        return JsonView()
    if arguments.quiet:
        return QuietView(targets)
    if sys.stdout.isatty() and targets <= CHATTY:
        from lastcall.cli.live import live_view

        live = live_view(targets)
        if live is not None:
            return live
    return PlainView(sys.stdout, targets)


async def _watched(
    arguments: argparse.Namespace, policy: Policy, work: Work, view: View
) -> list[Result]:
    import asyncio
    import os
    import signal

    from lastcall.clock import SystemClock
    from lastcall.journal.place import state_dir
    from lastcall.stop.operation import Operation
    from lastcall.stop.ownership import who

    operation = Operation(
        state_dir(),
        policy,
        SystemClock(),
        view.news,
        view.result,
        ask_again=getattr(arguments, "ask_again", False),
        at_once=getattr(arguments, "at_once", None),
    )
    interrupts = 0

    def interrupted(signum: int) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            os._exit(128 + signum)
        operation.leave(f"{signal.Signals(signum).name} to lastcall, {who()}")

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            continue  # as `nohup` wants it, or a script that put us in the background
        loop.add_signal_handler(signum, interrupted, signum)
    return await work(operation)


def _code(result: Result) -> ExitCode:
    if result.error is not None:
        return result.error.exit_code
    return ExitCode.INTERRUPTED if result.finished is None else result.finished.exit_code
