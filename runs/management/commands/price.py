"""manage.py price"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from runs import actions
from runs.actions.prices import end_price, find_price, read_moment, set_price, withdraw_price
from runs.actions.repricing import apply_repricing, apply_some, find_repricing, plan_repricing
from runs.management.startup import operating_system_user, prepare_database
from runs.models import CONTEXTS, Repricing, RepricingState
from runs.models.charge import PRICES
from runs.reading.prices import read_overrides, read_price_lines, read_unpriced
from runs.reading.repricings import read_repricing
from runs.reading.words import unit_price

OPTIONS = [name.replace("_", "-") for name in PRICES]


class Command(BaseCommand):
    help = "Prices of models: list, set, end, withdraw; reprice makes a dry run, apply does what it showed."
    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """A sub-command for each thing that can be done."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        verbs.add_parser("list", help="prices that hold, what people set, and what has no price")
        one = verbs.add_parser("set", help="set a price; USD per million tokens")
        one.add_argument("model", metavar="MODEL", nargs="?", default="")
        one.add_argument("--change", type=int, metavar="NUMBER", help="make a new revision of this override")
        one.add_argument(
            "--context", default="", choices=list(CONTEXTS), metavar="CONTEXT", help="such as batch"
        )
        for name in OPTIONS:
            one.add_argument(f"--{name}", default="", metavar="USD")
        one.add_argument(
            "--from", dest="valid_from", default="", metavar="TIME", help="UTC; without: since ever"
        )
        one.add_argument("--to", dest="valid_to", default="", metavar="TIME", help="UTC; without: for good")
        one.add_argument("--reason", default="")
        for verb, help in (("end", "it holds no longer"), ("withdraw", "it was a mistake, and never holds")):
            one = verbs.add_parser(verb, help=help)
            one.add_argument("override", type=int, metavar="NUMBER")
            one.add_argument("--reason", default="")
        one = verbs.add_parser("reprice", help="a dry run over past calls")
        one.add_argument(
            "--from", dest="since", required=True, metavar="TIME", help="UTC, such as 2026-11-01"
        )
        one.add_argument("--to", dest="until", default="", metavar="TIME", help="UTC; without: now")
        one.add_argument("--model", default="")
        one.add_argument("--agent", default="")
        one = verbs.add_parser("apply", help="do what a dry run showed, or go on with it")
        one.add_argument("repricing", type=int, metavar="NUMBER")
        one.add_argument("--reason", default="")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        """Act and say what holds now; exit status 1 when it does not apply."""
        prepare_database()
        actor = operating_system_user().get_username()
        try:
            if verb == "reprice":
                self._show(_plan(actor, options))
            elif verb == "apply":
                self._show(_apply(actor, options))
            else:
                if verb == "set":
                    _set(actor, options)
                elif verb != "list":
                    act = end_price if verb == "end" else withdraw_price
                    act(actor=actor, override_id=options["override"], reason=options["reason"])
                self._list()
        except actions.ActionError as error:
            raise CommandError(str(error)) from error

    def _list(self) -> None:
        now = timezone.now()
        for line in read_price_lines(now):
            what = f"{line.model} ({line.about})" if line.about else line.model
            usd = " ".join(f"{label.lower()} {unit_price(unit)}," for label, unit in line.units)
            self.stdout.write(f"{what}: {usd} {line.prices.source}" if line.prices else f"{what}: unpriced")
        for row, state in read_overrides(now):
            self.stdout.write(
                f"override {row.pk}, revision {row.revision}: {row.model} ({row.context_words}), {state}, "
                f"set by {row.set_by}"
            )
        for used in read_unpriced():
            what = f"{used.model} ({used.context_words}), {used.calls} calls of {used.runs} runs"
            self.stdout.write(f"without a price: {what}, {used.tokens:,} tokens")

    def _show(self, repricing: Repricing) -> None:
        page = read_repricing(repricing)
        for line in page.models:
            what = f"{line.model} (simulated)" if line.simulated else line.model
            cost = f"${line.before:f} before, ${line.after:f} after"
            self.stdout.write(f"{what}: {line.charges} charges of {line.runs} runs, {cost}")
        for kind in page.kinds:
            what = "simulated, in all" if kind.simulated else "in all"
            self.stdout.write(f"{what}: ${kind.before:f} before, ${kind.after:f} after")
        which = f"repricing {repricing.pk}, {repricing.get_state_display().lower()}"
        self.stdout.write(f"{which}: {repricing.charge_count} charges of {repricing.run_count} runs")
        if page.left_alone:
            self.stdout.write(f"{page.left_alone} runs had changed meanwhile and were left as they are")
        if repricing.state == RepricingState.DRY_RUN and repricing.charge_count:
            self.stdout.write(
                f"Nothing was changed. Apply it: manage.py price apply {repricing.pk} --reason …"
            )


def _set(actor: str, options: dict[str, Any]) -> None:
    """A change keeps what is not said."""
    change = options["change"]
    old = None if change is None else find_price(change)
    kept = {"web_search": "10"} if old is None else old.values
    given = {name: options[name] or kept.get(name, "") for name in (*PRICES, "valid_from", "valid_to")}
    set_price(
        actor=actor,
        model=options["model"] if old is None else old.model,
        context=options["context"] if old is None else old.context,
        prices={name: given[name] for name in PRICES},
        valid_from=given["valid_from"].removesuffix("+00:00"),
        valid_to=given["valid_to"].removesuffix("+00:00"),
        reason=options["reason"],
        override_id=change,
    )


def _plan(actor: str, options: dict[str, Any]) -> Repricing:
    since = read_moment(options["since"])
    until = read_moment(options["until"]) if options["until"] else timezone.now()
    if since is None or until is None:
        raise actions.ActionError("Give times in UTC, such as 2026-11-01 or 2026-11-22T14:30.")
    chosen = {name: options[name] for name in ("model", "agent")}
    return plan_repricing(actor=actor, since=since, until=until, **chosen)


def _apply(actor: str, options: dict[str, Any]) -> Repricing:
    """To the end, also of what somebody else began."""
    repricing = find_repricing(options["repricing"])
    if repricing.state == RepricingState.DRY_RUN:
        apply_repricing(
            actor=actor, repricing_id=repricing.pk, digest=repricing.digest, reason=options["reason"]
        )
    while apply_some():
        pass
    return find_repricing(repricing.pk)
