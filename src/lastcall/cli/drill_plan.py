"""The options of `lastcall drill http`, and the plan that they describe."""

from __future__ import annotations

import contextlib
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

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
        "--load", type=float, metavar="N", default=0.0, help="requests a second beside; default: 0"
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
    group.add_argument(
        "--how", metavar="HOW", default="TERM", help="a signal, or rolling:'CMD'; default: TERM"
    )
    group.add_argument("--to", choices=("main", "group", "tree"), default="main")
    group.add_argument("--twice", metavar="TIME", help="the signal once more, after so long")
    group.add_argument("--stop-with", metavar="CMD", help="a command stops it, not a signal")
    group.add_argument(
        "--at",
        metavar="TIME",
        help="so long after the requests were sent; default: once all are in",
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
    from lastcall.drill.plan import Plan
    from lastcall.durations import parse_duration
    from lastcall.proc.ready import Ready

    pid = _pid(args)
    if args.server and pid is not None:
        raise UsageError("either a command to start or a --target, not both")
    if not args.server and pid is None and not (args.url and (args.stop_with or args.how)):
        raise UsageError(
            "there is no server to drill",
            "such as: lastcall drill http --slow-path /report -- uvicorn shop:app",
        )
    env = [_variable(text) for text in args.env]
    if ledger:
        env.append(("LASTCALL_LEDGER", ledger))
    if args.slow_boot:
        env.append(("LASTCALL_SLOW_BOOT", f"{parse_duration(args.slow_boot):g}"))
    return Plan(
        command=tuple(args.server),
        place=_place(args),
        pid=pid,
        scenario=scenario_of(args),
        how=_how(args),
        ready=Ready.parse(args.ready) if args.ready else None,
        ready_within_s=parse_duration(args.ready_within),
        moment_s=parse_duration(args.at) if args.at else None,
        patience_s=parse_duration(args.patience),
        pid1=args.pid1,
        env=tuple(env),
        ledger=ledger,
        again=shlex.join(["lastcall", *sys.argv[1:]]),
    )


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
        raise UsageError(f"--env {text}: not of the form NAME=VALUE")
    return name, value


def _how(args: argparse.Namespace) -> How:
    from lastcall.drill.how import How, To, split
    from lastcall.durations import parse_duration

    again_s = parse_duration(args.twice) if args.twice else None
    if args.stop_with:
        if again_s is not None:
            raise UsageError("--twice repeats a signal, and --stop-with sends none")
        return How(command=split(args.stop_with))
    return How.parse(args.how, To(args.to), again_s)


def scenario_of(args: argparse.Namespace) -> Scenario:
    """The traffic that the options describe.

    Raises:
        UsageError: they make no sense together.
    """
    from lastcall.drill.presets import IN_HANDLER_COUNT, scenario, uneven
    from lastcall.drill.scenario import Load, Newcomers, Request
    from lastcall.drill.scenario_file import read_scenario
    from lastcall.durations import parse_duration

    count = IN_HANDLER_COUNT if args.count is None else args.count
    if not 0 <= count <= _MOST_CONNECTIONS:
        raise UsageError(f"--count {count}: from 0 to {_MOST_CONNECTIONS}")
    paths = _paths(args)
    fast = Request(paths.path)
    think_s = parse_duration(args.think) if args.think else 0.0
    rate = 20.0 if args.rate is None else args.rate
    whole = scenario(paths, count, Newcomers(fast, rate, think_s))
    if args.scenario:
        whole = read_scenario(args.scenario)
    if args.load:
        whole = replace(whole, load=Load(fast, args.load))
    whole = _with_requests(whole, args.request, count)
    if args.uneven:
        whole = uneven(whole)
    return _chosen(whole, args)


_MOST_CONNECTIONS = 5000


def _paths(args: argparse.Namespace) -> Paths:
    from lastcall.drill.presets import Paths, probe_paths

    given = {name: getattr(args, f"{name}_path") for name in _PATHS}
    given = {name: path for name, path in given.items() if path}
    if args.path:
        given["path"] = args.path
    for name, path in given.items():
        if not path.startswith("/"):
            raise UsageError(f"the path {path!r} of {name} does not begin with /")
    if args.probe:
        return replace(probe_paths(), **given)
    return Paths(**given)


def _with_requests(whole: Scenario, files: list[str], count: int) -> Scenario:
    """The templates are what is in the handlers, and what is half sent where they have a body."""
    from lastcall.drill.history import Kind
    from lastcall.drill.scenario import State
    from lastcall.drill.scenario_file import read_request

    if not files:
        return whole
    requests = [read_request(path) for path in files]
    states = [s for s in whole.states if s.kind is not Kind.IN_HANDLER]
    states += [State(Kind.IN_HANDLER, r, max(1, count // len(requests))) for r in requests]
    states += [State(Kind.HALF_BODY, r, 2) for r in requests if r.body]
    return replace(whole, states=tuple(states))


def _chosen(whole: Scenario, args: argparse.Namespace) -> Scenario:
    from lastcall.drill.scenario_file import kind_of

    states = whole.states
    if args.only:
        only = {kind_of(word.strip()) for word in args.only.split(",")}
        states = tuple(s for s in states if s.kind in only)
        if not states:
            raise UsageError(
                f"--only {args.only}: this scenario has no such state",
                "the states with a body, a stream or a WebSocket need their path",
            )
    if args.without:
        never = {kind_of(word.strip()) for word in args.without.split(",")}
        states = tuple(s for s in states if s.kind not in never)
    return replace(whole, states=states)
