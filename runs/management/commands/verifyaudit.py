"""manage.py verifyaudit"""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from runs.management.startup import prepare_database, run_named
from runs.reading.audit import HEADER, RULES, Digest, Head, Note, compare, read_chains, stray_events
from runs.reading.rule_audit import audit_rules
from runs.reading.words import counted

STRAY = "event belongs to no run: its run was,events belong to no run: their runs were"


class Command(BaseCommand):
    help = "Check the hash chains of the events of all runs, and compare them with heads noted earlier."
    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which runs, and what to compare with."""
        parser.add_argument("--run", metavar="REQUEST_ID", default="", help="only this run")
        parser.add_argument(
            "--since", metavar="DATE", default="", help="only runs that something happened in since (UTC)"
        )
        parser.add_argument("--heads", metavar="FILE", default="", help="write the head of each chain there")
        parser.add_argument("--expect", metavar="FILE", default="", help="compare with heads written before")
        parser.add_argument(
            "--anchor", metavar="HASH", default="", help="the digest that was noted elsewhere"
        )

    def handle(
        self, *args: Any, run: str, since: str, heads: str, expect: str, anchor: str, **o: Any
    ) -> None:
        """Print each problem in a sentence, then the digest over all heads; exit status 1 with a problem."""
        prepare_database()
        if (run or since) and (heads or expect or anchor):
            raise CommandError("Heads are those of all runs: leave out --run and --since.")
        note = _note(expect) if expect else None
        moment = _moment(since) if since else None
        with tempfile.TemporaryFile("w+") as lines:
            digest, problems = self._check(lines, run_named(run).request_id if run else None, moment)
            if not run and not since:
                problems += self._check_rules(digest, lines)
            problems += self._compare(note, anchor, digest.value)
            if heads:
                _write(Path(heads), digest, lines)
        if not run and not since:
            self.stdout.write(f"heads of {counted(digest.count, 'run')}: {digest.value}")
        self.stdout.write("Nothing is broken." if not problems else f"{counted(problems, 'problem')}.")
        if problems:
            sys.exit(1)

    def _check(self, lines: IO[str], request_id: Any, since: datetime | None) -> tuple[Digest, int]:
        digest, events, problems = Digest(), 0, 0
        for chain in read_chains(request_id=request_id, since=since):
            digest.add(chain.head)
            lines.write(chain.head.line)
            events += chain.events
            problems += len(chain.problems)
            for sentence in chain.problems:
                self.stdout.write(f"run {chain.head.request_id}: {sentence}")
        if stray := stray_events():
            problems += 1
            self.stdout.write(f"{counted(stray, STRAY)} deleted")
        self.stdout.write(f"{counted(events, 'event')} of {counted(digest.count, 'run')} checked")
        return digest, problems

    def _check_rules(self, digest: Digest, lines: IO[str]) -> int:
        """The chain of changes of rules, and what is in force by it; how much is wrong."""
        audit = audit_rules()
        for sentence in audit.problems:
            self.stdout.write(f"rules: {sentence}")
        if audit.changes:
            head = Head(RULES, audit.changes, audit.head)
            digest.add(head)
            lines.write(head.line)
            self.stdout.write(f"{audit.changes} changes of rules checked, head {audit.head}")
        return len(audit.problems)

    def _compare(self, note: Note | None, anchor: str, now: str) -> int:
        """Say what is no longer as it was noted; how much that is."""
        found = list(compare(note)) if note else []
        if note and anchor and note.digest != anchor:
            found.insert(0, "the file is not the one whose digest was noted: they differ")
        if anchor and not note and anchor != now:
            found.append(
                "the digest is another one than the noted. Runs went on, or were rewritten: only the list of "
                "heads can tell, give it with --expect"
            )
        for sentence in found:
            self.stdout.write(sentence)
        if note and not found:
            self.stdout.write(f"All {len(note.heads)} noted heads are where they were.")
        return len(found)


def _write(path: Path, digest: Digest, lines: IO[str]) -> None:
    lines.seek(0)
    try:
        with path.open("w") as file:
            file.write(f"{HEADER} {digest.value} {timezone.now():%Y-%m-%dT%H:%M:%SZ}\n")
            file.writelines(lines)
    except OSError as error:
        raise CommandError(f"Cannot write {path}: {error.strerror}.") from error


def _note(path: str) -> Note:
    try:
        return Note.parse(Path(path).read_text())
    except OSError as error:
        raise CommandError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is no list of heads: it is not text.") from error
    except ValueError as error:
        raise CommandError(f"{path}: {error}") from error


def _moment(text: str) -> datetime:
    """A date or a time in UTC; CommandError when it is none."""
    try:
        if len(text) == len("2026-11-22"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None:
        raise CommandError(f"{text!r} is no date: write 2026-11-22 or 2026-11-22T07:00Z.", returncode=2)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
