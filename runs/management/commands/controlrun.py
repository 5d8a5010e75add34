"""manage.py controlrun"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from runs import actions
from runs.management.startup import operating_system_user, prepare_database, run_named
from runs.models import Run

VERBS = {
    "cancel": "end the run now, also in the middle of a turn or a tool",
    "pause": "make no further move",
    "resume": "let a paused run go on",
    "retry": "let a failed or stopped run go on after its last good step",
    "fork": "a new run from a step of this one, with another instruction",
    "ask": "a new run that knows all of an ended one, with a follow-up question",
    "resolve": "say what became of a call whose outcome is unknown, and how you know",
}
VERDICTS = {"happened": "happened", "did-not-happen": "did_not_happen", "abandon": "abandoned"}


class Command(BaseCommand):
    help = "Steer a run: cancel, pause, resume, retry, fork, ask, resolve."
    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """One sub-command for each thing that can be done."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        for verb, help in VERBS.items():
            one = verbs.add_parser(verb, help=help)
            one.add_argument("request_id", metavar="REQUEST_ID")
            if verb in {"resume", "retry"}:
                one.add_argument(
                    "--limit",
                    action="append",
                    default=[],
                    metavar="NAME=VALUE",
                    help="raise a limit, such as cost_usd=5; may be given several times",
                )
            if verb == "fork":
                one.add_argument("--step", type=int, required=True, help="the last step to share")
            if verb == "resolve":
                one.add_argument("--step", type=int, required=True, help="the call whose outcome is unknown")
                one.add_argument("verdict", choices=VERDICTS, help="what became of it")
                one.add_argument("text", metavar="EVIDENCE", help="what you looked at, and what you saw")
            if verb in {"fork", "ask"}:
                one.add_argument("text", metavar="TEXT", help="what the agent is to do, word for word")

    def handle(self, *args: Any, verb: str, request_id: str, **options: Any) -> None:
        """Act and say what happened; exit status 1 when it does not apply, 2 when it was mistyped."""
        prepare_database()
        run = run_named(request_id)
        try:
            self.stdout.write(_act(verb, run, operating_system_user(), options))
        except actions.ActionError as error:
            raise CommandError(str(error)) from error


def _act(verb: str, run: Run, user: User, options: dict[str, Any]) -> str:
    """Do it; the sentence that says what happened."""
    actor = user.get_username()
    match verb:
        case "cancel":
            actions.cancel_run(run_id=run.pk, actor=actor)
            return "The run is cancelled."
        case "pause":
            now = actions.pause_run(run_id=run.pk, actor=actor)
            return "The run is paused." if now else "The run pauses after its current move."
        case "resume":
            actions.resume_run(run_id=run.pk, actor=actor, limits=_limits(options["limit"]))
        case "retry":
            actions.retry_run(run_id=run.pk, actor=actor, limits=_limits(options["limit"]))
        case "fork":
            step, text = options["step"], options["text"]
            new = actions.fork_run(run_id=run.pk, actor=actor, user=user, step=step, instruction=text)
            return f"Run {new.request_id} goes on from step {new.copied_steps} as soon as a worker is free."
        case "ask":
            new = actions.ask_follow_up(run_id=run.pk, actor=actor, user=user, question=options["text"])
            return f"Run {new.request_id} answers as soon as a worker is free."
        case "resolve":
            actions.resolve_outcome(
                run_id=run.pk,
                seq=options["step"],
                verdict=VERDICTS[options["verdict"]],
                evidence=options["text"],
                by=user,
            )
            return "It is recorded. The agent is told with its next turn, or with a follow-up question."
    return "The run goes on as soon as a worker is free."


def _limits(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, sign, value in pairs:
        if not (name and sign and value):
            raise CommandError(
                f"--limit {name}{sign}{value} cannot be read. Write --limit cost_usd=5.", returncode=2
            )
    return {name.strip(): value for name, _, value in pairs}
