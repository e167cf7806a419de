"""The options of `lastcall drill http`, and the plan that they describe."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from lastcall.cli.drill_again import again
from lastcall.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from lastcall.drill.how import How
    from lastcall.drill.place import Place
    from lastcall.drill.plan import Plan
    from lastcall.drill.presets import Paths
    from lastcall.drill.scenario import Scenario

_PATHS = ("slow", "upload", "stream", "length", "events", "poll", "websocket")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `lastcall drill http` takes."""
    parser.add_argument(
        "server",
        nargs="*",
        metavar="COMMAND",
        help="what starts the server, after `--`; {port} in it becomes a free port",
    )
    _what(parser.add_argument_group("the server"))
    _traffic(parser.add_argument_group("the traffic"))
    _stop(parser.add_argument_group("the stop"))
    _reports(parser.add_argument_group("the report"))


def _what(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--target", metavar="TARGET", help="one that runs already: pid:, port:, ...")
    group.add_argument("--url", help="where it is, when its command does not tell")
    group.add_argument(
        "--ready",
        metavar="WHEN",
        help="a path, a URL, port:N, line:TEXT or notify (sd_notify); default: it answers",
    )
    group.add_argument("--ready-within", metavar="TIME", default="30s", help="default: 30s")
    group.add_argument(
        "--slow-boot", metavar="TIME", help="the probe application takes so long to start"
    )
    group.add_argument("--pid1", action="store_true", help="run it as PID 1 of a pid namespace")
    group.add_argument(
        "--env", metavar="NAME=VALUE", action="append", default=[], help="for the command"
    )


def _traffic(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--probe", action="store_true", help="it runs lastcall's probe application: use all of it"
    )
    group.add_argument("--path", metavar="PATH", help="answers at once; default: /")
    for name in _PATHS:
        group.add_argument(f"--{name}-path", metavar="PATH", help=_PATH_HELP[name])
    group.add_argument(
        "--request",
        metavar="FILE",
        action="append",
        default=[],
        help="a request to have in flight: `POST /orders`, headers, an empty line, the body",
    )
    group.add_argument("--scenario", metavar="FILE", help="all the traffic from a TOML file")
    group.add_argument("--only", metavar="STATES", help="such as in-handler,half-headers")
    group.add_argument("--without", metavar="STATES", help="all but these")
    group.add_argument("--count", type=int, metavar="N", help="requests in flight; default: 20")
    group.add_argument(
        "--uneven", action="store_true", help="one single request in flight: the others idle"
    )
    group.add_argument(
        "--rate", type=float, metavar="N", help="new connections a second; default: 20"
    )
    group.add_argument(
        "--think", metavar="TIME", help="they wait between connecting and sending; default: 0"
    )
    group.add_argument(
        "--load", type=float, metavar="N", help="requests a second beside; default: 0"
    )
    group.add_argument("--ledger", metavar="FILE", help="the server writes down there what it did")


_PATH_HELP = {
    "slow": "takes a while: what is to be in flight",
    "upload": "takes a body by POST",
    "stream": "streams its answer in chunks",
    "length": "streams its answer with a Content-Length",
    "events": "server-sent events",
    "poll": "a long poll",
    "websocket": "echoes over a WebSocket",
}


def _stop(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--how", metavar="HOW", help="a signal, or rolling:'CMD'; default: TERM")
    group.add_argument(
        "--to", choices=("main", "group", "tree"), help="who gets the signal; default: main"
    )
    group.add_argument("--twice", metavar="TIME", help="the signal once more, after so long")
    group.add_argument("--stop-with", metavar="CMD", help="a command stops it, not a signal")
    group.add_argument(
        "--at",
        metavar="TIME",
        help="so long after all were begun; default: once all are in; several: 0.1s,0.5s",
    )
    group.add_argument("--patience", metavar="TIME", default="30s", help="default: 30s")
    group.add_argument(
        "--sweep", type=int, metavar="N", help="N stops at moments spread over --span"
    )
    group.add_argument("--span", metavar="TIME", default="1s", help="default: 1s")
    group.add_argument("--seed", type=int, metavar="N", default=1, help="of the moments")


def _reports(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--html", metavar="FILE", help="one page with the timeline")
    group.add_argument("--junit", metavar="FILE", help="for CI")
    group.add_argument("--history", metavar="FILE", help="every attempt, one JSON object a line")
    group.add_argument("--json", action="store_true", help="the result as one JSON object")
    group.add_argument("--quiet", action="store_true", help="only the verdict")


def plan_of(args: argparse.Namespace, ledger: str) -> Plan:
    """The plan that the options describe.

    Raises:
        LastcallError: they make no sense.
    """
    from lastcall.cli.drill import length_of
    from lastcall.drill.plan import Plan
    from lastcall.proc.ready import Ready

    _refuse_together(args)
    env = [_variable(text) for text in args.env]
    if ledger:
        _refuse_no_ledger(ledger)
        env.append(("LASTCALL_LEDGER", ledger))
    if args.slow_boot:
        env.append(("LASTCALL_SLOW_BOOT", f"{length_of('--slow-boot', args.slow_boot):g}"))
    place = _place(args)
    return Plan(
        command=tuple(args.server),
        place=place,
        scenario=scenario_of(args),
        how=_how(args),
        ready=Ready.parse(args.ready) if args.ready else None,
        ready_within_s=length_of("--ready-within", args.ready_within),
        moment_s=moments_of(args)[0] if args.at else None,
        patience_s=length_of("--patience", args.patience, zero=False),
        pid1=args.pid1,
        env=tuple(env),
        ledger=ledger,
        again=again(sys.argv[1:]),
        pid=_pid(args),  # at last: who is there may have changed, and the words have not
    )


def moments_of(args: argparse.Namespace) -> list[float]:
    """The moments of `--at`, in seconds.

    Raises:
        UsageError: one is no length of time.
    """
    from lastcall.cli.drill import length_of

    return [length_of("--at", word.strip()) for word in (args.at or "").split(",") if args.at]


def _refuse_together(args: argparse.Namespace) -> None:
    """Refuse what makes no sense together, before anything is looked up or started."""
    by_command = bool(args.stop_with or (args.how or "").startswith("rolling:"))
    if args.server and args.target is not None:
        raise UsageError("either a command to start or a --target, not both", "leave out one")
    if not args.server:
        _refuse_for_running(args, by_command=by_command)
    if args.stop_with:
        for name, given in {"--how": args.how, "--to": args.to, "--twice": args.twice}.items():
            if given:
                raise UsageError(
                    f"{name} is about a signal, and --stop-with sends none", f"leave out {name}"
                )
    if by_command and args.to:
        raise UsageError("--to is about a signal, and rolling: sends none", "leave out --to")


def _refuse_for_running(args: argparse.Namespace, *, by_command: bool) -> None:
    """The same for a server that runs already."""
    if args.target is None and not args.url:
        raise UsageError(
            "there is no server to drill",
            "such as: lastcall drill http --slow-path /report -- uvicorn shop:app",
        )
    if args.target is None and not by_command:
        raise UsageError(
            "it is not known which process to signal",
            "add --target pid:N, or --stop-with 'CMD' for a command that stops the server",
        )
    started = {"--pid1": args.pid1, "--env": args.env, "--slow-boot": args.slow_boot}
    for name in (name for name, given in started.items() if given):
        raise UsageError(
            f"{name} is for a server that is started here, and this one runs already",
            f"leave out {name}, or give the command after `--`",
        )


def _refuse_no_ledger(path: str) -> None:
    """What stands there must be a file: a pipe would keep us waiting."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise UsageError(f"--ledger {path}: there is no folder {folder}", "create it")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"--ledger {path} is no file", "name one to which the server appends")


def _pid(args: argparse.Namespace) -> int | None:
    from lastcall.model import Address
    from lastcall.targets.process.lookup.resolve import resolve

    if args.target is None:
        return None
    with contextlib.closing(resolve(Address.parse(args.target)).handle) as handle:
        return handle.identity.pid


def _place(args: argparse.Namespace) -> Place | None:
    from lastcall.drill.place import Place

    if args.url:
        return Place.parse(args.url)
    if args.target and args.target.startswith("port:") and args.target[5:].isdecimal():
        return Place("127.0.0.1", int(args.target[5:]))
    return None


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--env {text}: not of the form NAME=VALUE", "such as --env DEBUG=1")
    return name, value


def _how(args: argparse.Namespace) -> How:
    from lastcall.cli.drill import length_of
    from lastcall.drill.how import How, To, split

    if args.stop_with:
        how = How(command=split(args.stop_with))
    else:
        again_s = length_of("--twice", args.twice) if args.twice else None
        how = How.parse(args.how or "TERM", To(args.to or "main"), again_s)
    if how.command and "{" not in how.command[0] and shutil.which(how.command[0]) is None:
        raise UsageError(
            f"the command that stops the server was not found: {how.command[0]}",
            "no shell runs it: name a program, or sh -c '...'",
        )
    return how


def scenario_of(args: argparse.Namespace) -> Scenario:
    """The traffic that the options describe.

    Raises:
        UsageError: they make no sense together.
    """
    from lastcall.cli.drill import length_of
    from lastcall.drill.presets import IN_HANDLER_COUNT, scenario, uneven
    from lastcall.drill.scenario import Load, Newcomers, Request
    from lastcall.drill.scenario_file import read_scenario

    count = IN_HANDLER_COUNT if args.count is None else args.count
    if not 0 <= count <= _MOST_CONNECTIONS:
        raise UsageError(f"--count {count}: from 0 to {_MOST_CONNECTIONS}", "such as 20")
    if args.scenario:
        _refuse_beside_file(args)
        whole = read_scenario(args.scenario)
        fast = whole.newcomers.request
    else:
        paths = _paths(args)
        fast = Request(paths.path)
        think_s = length_of("--think", args.think) if args.think else 0.0
        whole = scenario(paths, count, Newcomers(fast, _rate("--rate", args.rate, 20.0), think_s))
    if load := _rate("--load", args.load, 0.0):
        whole = replace(whole, load=Load(fast, load))
    whole = _with_requests(whole, args.request, count, keep=bool(args.scenario))
    if args.uneven:
        whole = uneven(whole)
        if not whole.states:
            raise UsageError("--uneven: this scenario has no request in flight", _NEEDS)
    return _chosen(whole, args)


_NEEDS = "the states with a body, a stream or a WebSocket need their path"


def _refuse_beside_file(args: argparse.Namespace) -> None:
    """What a scenario's file says, no option says, too: one of them would not hold."""
    names = ["path", *(f"{name}_path" for name in _PATHS), "count", "rate", "think"]
    for name in names:
        if getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} beside --scenario: the file says all of that",
                f"write it into {args.scenario}, or leave out {option}",
            )


def _rate(option: str, given: float | None, default: float) -> float:
    from lastcall.drill.scenario_file import MOST_A_SECOND

    if given is None:
        return default
    if not 0 <= given <= MOST_A_SECOND:  # nor is NaN
        raise UsageError(f"{option} {given:g}: from 0 to {MOST_A_SECOND:g} a second", "such as 200")
    return given


_MOST_CONNECTIONS = 5000


def _paths(args: argparse.Namespace) -> Paths:
    from lastcall.drill.presets import Paths, probe_paths
    from lastcall.drill.wellformed import path_fault

    given = {name: getattr(args, f"{name}_path") for name in _PATHS}
    given = {name: path for name, path in given.items() if path}
    if args.path:
        given["path"] = args.path
    for name, path in given.items():
        if fault := path_fault(path):
            option = "--path" if name == "path" else f"--{name}-path"
            raise UsageError(f"{option}: {fault[0]}", fault[1])
    if args.probe:
        return replace(probe_paths(), **given)
    return Paths(**given)


def _with_requests(whole: Scenario, files: list[str], count: int, *, keep: bool) -> Scenario:
    """The templates are what is in the handlers, and what is half sent where they have a body.

    Args:
        whole: without them.
        files: the templates.
        count: how many requests are to be in flight.
        keep: whether those that `whole` has in the handlers stay.
    """
    from lastcall.drill.history import Kind
    from lastcall.drill.scenario import State
    from lastcall.drill.scenario_file import read_request

    if not files:
        return whole
    requests = [read_request(path) for path in files]
    states = [s for s in whole.states if keep or s.kind is not Kind.IN_HANDLER]
    each = max(1, count // len(requests)) if count else 0
    states += [State(Kind.IN_HANDLER, r, each) for r in requests]
    states += [State(Kind.HALF_BODY, r, 2) for r in requests if r.body]
    return replace(whole, states=tuple(states))


def _chosen(whole: Scenario, args: argparse.Namespace) -> Scenario:
    from lastcall.drill.scenario_file import kind_of

    states = whole.states
    if args.only:
        only = {kind_of(word.strip()) for word in args.only.split(",")}
        states = tuple(s for s in states if s.kind in only)
        if not states:
            raise UsageError(f"--only {args.only}: this scenario has no such state", _NEEDS)
    if args.without:
        never = {kind_of(word.strip()) for word in args.without.split(",")}
        states = tuple(s for s in states if s.kind not in never)
        if not states:
            raise UsageError(f"--without {args.without} leaves no state", "leave some")
    return replace(whole, states=states)
