"""Runs of any length: read and drawn a section at a time, whatever one step holds."""

from __future__ import annotations

import json
import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries

from runs import actions
from runs.models import Event, Run, RunStatus, Step
from runs.reading.payloads import BEGINNING, PIECE, WHOLE
from runs.reading.trace import SECTION_STEPS, read_trace
from runs.reading.trace_changes import AXIS, SECTION, STEPS, TURN, TraceMemory
from tests.factories import a_lease, a_run, a_turn, a_waiting_call, an_attempt
from tests.long_runs import a_long_run

pytestmark = pytest.mark.django_db
LONG = 5 * SECTION_STEPS + 7


@pytest.fixture
def page(client: Client, operator: User) -> Client:
    """Olga's browser."""
    client.force_login(operator)
    return client


def html_of(page: Client, address: str, *, panel: bool = False) -> str:
    response = page.get(address, headers={"HX-Request": "true", "HX-Target": "panel"} if panel else {})
    assert response.status_code == 200, address
    return response.content.decode()


def shown(html: str) -> list[int]:
    """The steps whose rows are drawn."""
    return [int(seq) for seq in re.findall(r'id="row-(\d+)"', html)]


def test_a_long_run_draws_one_section_and_keeps_places_for_the_others(page: Client) -> None:
    run = a_long_run(LONG)
    html = html_of(page, run.get_absolute_url())
    assert shown(html) == list(range(1, SECTION_STEPS + 1))
    assert html.count("section place") == 5
    assert f'href="?section=6#section-6">Steps {5 * SECTION_STEPS + 1:,} to {LONG:,}</a>' in html


def test_every_step_of_a_long_run_is_reached_by_links_alone(page: Client) -> None:
    run = a_long_run(LONG)
    html = html_of(page, run.get_absolute_url())
    seen = shown(html)
    for section in re.findall(r'class="place-link" href="\?section=(\d+)#', html):
        seen += shown(html_of(page, f"{run.get_absolute_url()}?section={section}"))
        fragment = html_of(page, f"{run.get_absolute_url()}sections/{section}/")
        assert shown(fragment) == seen[-len(shown(fragment)) :]
    assert seen == list(range(1, LONG + 1))


def test_a_link_to_a_step_opens_the_section_that_has_it(page: Client) -> None:
    run = a_long_run(LONG)
    html = html_of(page, f"{run.get_absolute_url()}?step={LONG - 3}")
    assert shown(html)[0] == 5 * SECTION_STEPS + 1
    assert f'data-step="{LONG - 3}" aria-current="true"' in html
    assert f"{LONG - 3} · " in html


@pytest.mark.parametrize("number", [0, 7, 999_999])
def test_a_section_that_does_not_exist_is_not_found(page: Client, number: int) -> None:
    run = a_long_run(LONG)
    assert page.get(f"{run.get_absolute_url()}sections/{number}/").status_code == 404
    assert shown(html_of(page, f"{run.get_absolute_url()}?section={number}"))


def test_a_call_whose_turn_stands_in_the_section_before_is_still_drawn(page: Client) -> None:
    run = a_long_run(SECTION_STEPS + 10)  # the turn is the last step of the first section but one
    html = html_of(page, f"{run.get_absolute_url()}sections/2/")
    assert shown(html)[0] == SECTION_STEPS + 1
    assert 'class="orphan"' in html


@pytest.mark.parametrize("steps", [12, LONG])
def test_the_page_takes_the_same_few_queries_for_runs_of_any_length(
    page: Client, steps: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    run = a_long_run(steps)
    # session, user, run and whether it asked, steps, (the last turn of a long run), step and its turn,
    # its charges, its events, tickets, checks, evidence, forks, pending, unknown, permissions (2)
    with django_assert_num_queries(17 + (steps == LONG)):
        assert page.get(run.get_absolute_url()).status_code == 200
    # session, user, run, steps
    with django_assert_num_queries(4):
        assert page.get(f"{run.get_absolute_url()}sections/1/").status_code == 200
    # session, user, run, step, its approval, its events
    with django_assert_num_queries(6):
        html_of(page, f"{run.get_absolute_url()}?step=2", panel=True)


def test_a_step_among_very_many_events_shows_its_own(
    page: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    steps = list(a_long_run(LONG).steps.order_by("seq"))
    run = steps[0].run
    told = [(step, word) for step in steps for word in ("proposed", "noted", "allowed", "finished")]
    Event.objects.filter(run=run).delete()
    Event.objects.bulk_create(
        Event(run=run, seq=seq, kind=f"call.{word}", data=f'{{"step":{step.seq}}}', at=step.started_at)
        for seq, (step, word) in enumerate(told, 1)
    )
    Run.objects.filter(pk=run.pk).update(last_event=len(told))
    for seq in (1, 2, 600, LONG):
        # session, user, run, step, its approval or charges, where its events begin, they themselves
        with django_assert_num_queries(7):
            panel = html_of(page, f"{run.get_absolute_url()}?step={seq}", panel=True)
        assert re.findall(r'"data">call\.(\w+)<', panel) == ["proposed", "noted", "allowed", "finished"]


def test_steps_of_parents_that_work_at_the_same_time_stand_each_inside_its_own(page: Client) -> None:
    """1 and 2 are open together, 4 began inside 3, and 8 comes back to 1 long after others began."""
    run = a_long_run(9)
    parents = {3: 1, 4: 3, 5: 2, 6: 4, 7: 2, 8: 1}
    for step in run.steps.all():
        parent = run.steps.filter(seq=parents.get(step.seq)).first()
        Step.objects.filter(pk=step.pk).update(parent=parent)
    open_ones: list[int | None] = []
    drawn: dict[int, int | None] = {}
    listed = html_of(page, run.get_absolute_url()).split('id="rows-1"')[1]
    for match in re.finditer(r'</ol>|<ol id="inside-(\d+)"|id="row-(\d+)"', listed):
        if match[1]:
            open_ones.append(int(match[1]))
        elif match[2]:
            drawn[int(match[2])] = open_ones[-1] if open_ones else None
        elif open_ones:
            open_ones.pop()
    assert drawn == {seq: parents.get(seq) for seq in range(1, 10)}


# ------------------------------------------------------------- conversation


def test_the_same_rows_are_read_as_a_conversation(
    page: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    run = a_long_run(LONG)
    evil = "<script>alert(1)</script>"
    Step.objects.filter(run=run, seq=1).update(text=evil, reasoning=evil)
    Step.objects.filter(run=run, seq=2).update(arguments=evil, result=evil + "x" * 500_000)
    address = f"{run.get_absolute_url()}?view=conversation"
    html = html_of(page, address)
    assert shown(html) == list(range(1, SECTION_STEPS + 1))
    assert html.count("&lt;script&gt;") == 4 and "<script>alert" not in html
    assert len(html) < 800_000
    assert 'href="?section=2&amp;view=conversation#section-2"' in html
    assert "Turn at step 4: let me look further." in html and "I wonder about step 4." in html
    with django_assert_num_queries(4):
        part = html_of(page, f"{run.get_absolute_url()}sections/2/?view=conversation")
    assert f"Turn at step {SECTION_STEPS + 2}: let me" in part


def test_a_conversation_shows_what_streams(page: Client) -> None:
    lease = a_lease(a_run())
    step = an_attempt(lease)
    actions.save_draft(lease, step, "The pool is <b>full")
    html = html_of(page, f"{step.run.get_absolute_url()}?view=conversation")
    assert html.count("The pool is &lt;b&gt;full") == 2, "in its row and in the panel"


# ----------------------------------------------------------------- payloads


def test_a_payload_of_many_megabytes_is_shown_by_its_beginning_and_downloaded_whole(page: Client) -> None:
    run = a_long_run(3)
    big = json.dumps({"rows": ["é" + "x" * 98] * 30_000}, ensure_ascii=False)
    assert len(big) > 4 * PIECE
    Step.objects.filter(run=run, seq=2).update(result=big)
    html = html_of(page, f"{run.get_absolute_url()}?step=2")
    assert len(html) < BEGINNING + 100_000
    assert f"The first {BEGINNING:,} of {len(big):,} characters" in html
    response = page.get(f"{run.get_absolute_url()}steps/2/result?download")
    assert b"".join(response.streaming_content).decode() == big  # type: ignore[attr-defined]
    assert response["Content-Disposition"] == f'attachment; filename="run-{run.pk}-step-2-result.txt"'


def test_a_payload_that_fits_is_a_folding_tree(page: Client) -> None:
    run = a_long_run(3)
    for size in (10, WHOLE // 2):
        Step.objects.filter(run=run, seq=2).update(result=json.dumps({"key": "v" * size}))
        html = html_of(page, f"{run.get_absolute_url()}?step=2")
        assert '<span class="k">key</span>' in html
        assert "The first" not in html


def test_what_a_tool_wrote_is_never_a_page_of_ours(page: Client) -> None:
    run = a_long_run(3)
    Step.objects.filter(run=run, seq=2).update(result="<script>alert(1)</script>")
    response = page.get(f"{run.get_absolute_url()}steps/2/result")
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Content-Security-Policy"] == "sandbox"


@pytest.mark.parametrize("path", ["steps/2/draft", "steps/2/run_id", "steps/99/result", "steps/2/"])
def test_only_the_texts_of_steps_that_exist_can_be_had(page: Client, path: str) -> None:
    run = a_long_run(3)
    assert page.get(f"{run.get_absolute_url()}{path}").status_code == 404


# ------------------------------------------------------------ find and jump


def test_text_is_found_in_everything_a_step_says(page: Client) -> None:
    run = a_long_run(LONG)
    places = {"name": 3, "error": 6, "text": 7, "arguments": 9, "result": 12, "reasoning": 13, "summary": 15}
    for column, seq in places.items():
        Step.objects.filter(run=run, seq=seq).update(**{column: f"{'so ' * 30}The NEEDLE <b>{column}</b>"})
    html = html_of(page, f"{run.get_absolute_url()}?find=needle")
    assert [int(seq) for seq in re.findall(r'data-hit="(\d+)"', html)] == sorted(places.values())
    assert html.count("<mark>NEEDLE</mark>") == len(places)
    assert "&lt;b&gt;result&lt;/b&gt;" in html
    assert 'value="needle"' in html


def test_many_hits_come_in_portions(page: Client) -> None:
    run = a_long_run(LONG)
    address = f"{run.get_absolute_url()}find?find=DB_pool&after=0"
    seen: list[int] = []
    for _ in range(3):
        html = html_of(page, address)
        seen += [int(seq) for seq in re.findall(r'data-hit="(\d+)"', html)]
        more = re.search(r'hx-get="([^"]+)"', html)
        assert more
        address = more[1].replace("&amp;", "&")
    assert seen == sorted(set(seen))
    assert len(seen) == 150


@pytest.mark.parametrize("words", ["%", "_", "\\", "'", "nothing like it", "\x00"])
def test_what_is_looked_for_is_taken_literally(page: Client, words: str) -> None:
    run = a_long_run(3)
    Step.objects.filter(run=run).update(
        result="plain", arguments="plain", reasoning="", text="", summary="", error="", name="x"
    )
    response = page.get(f"{run.get_absolute_url()}find", {"find": words})
    assert response.status_code == 200
    assert "data-hit" not in response.content.decode()


def test_the_next_error_is_found_wherever_it_is_and_then_the_first_again(page: Client) -> None:
    run = a_long_run(LONG)
    address = f"{run.get_absolute_url()}jump/error"
    assert page.get(f"{address}?after=0")["Location"] == f"{run.get_absolute_url()}?step=50#row-50"
    assert page.get(f"{address}?after=50", headers={"HX-Request": "true"}).json()["step"] == 150
    assert page.get(f"{address}?after={LONG}", headers={"HX-Request": "true"}).json()["step"] == 50


def test_a_jump_that_leads_nowhere_says_so(page: Client) -> None:
    run = a_long_run(3)
    answer = page.get(f"{run.get_absolute_url()}jump/approval", headers={"HX-Request": "true"}).json()
    assert answer == {"step": None, "sentence": "This run has no step that asked a person."}
    assert page.get(f"{run.get_absolute_url()}jump/approval")["Location"] == run.get_absolute_url()
    assert page.get(f"{run.get_absolute_url()}jump/nonsense").status_code == 404


def test_questions_and_the_dearest_step_are_found(page: Client) -> None:
    lease, step, _ = a_waiting_call()
    del lease
    address = f"{step.run.get_absolute_url()}jump"
    assert page.get(f"{address}/approval")["Location"].endswith(f"?step={step.seq}#row-{step.seq}")
    assert page.get(f"{address}/cost")["Location"].endswith("?step=1#row-1")


# --------------------------------------------------------------------- live


def parts(memory: TraceMemory, run: Run, viewer: User) -> list[tuple[str, int | None]]:
    run.refresh_from_db()
    trace = read_trace(run, viewer=viewer, now=timezone.now())
    return [(one.template, one.row.seq if one.row else None) for one in memory.changes(trace)]


def test_a_new_step_of_a_long_run_is_sent_alone(operator: User) -> None:
    run = a_long_run(2 * SECTION_STEPS - 1, status=RunStatus.RUNNING)
    memory = TraceMemory()
    assert parts(memory, run, operator) == [(STEPS, None)]
    lease = a_lease(run)
    an_attempt(lease)
    changed = parts(memory, run, operator)
    assert (TURN, 2 * SECTION_STEPS) in changed
    assert {template for template, _ in changed} <= {TURN, AXIS}
    an_attempt(lease)
    assert (SECTION, None) in parts(memory, run, operator), "the first step of a new section brings its place"


def test_the_first_steps_replace_the_words_that_there_are_none(operator: User) -> None:
    run = a_run()
    memory = TraceMemory()
    assert parts(memory, run, operator) == [(STEPS, None)]
    a_turn(a_lease(run), ("get_metrics", "read", {}))
    assert parts(memory, run, operator) == [(STEPS, None)]
    assert parts(memory, run, operator) == []


def test_the_section_of_a_run_that_waits_shows_its_question(client: Client, operator: User) -> None:
    run = a_long_run(250, status=RunStatus.RUNNING)
    _, step, _ = a_waiting_call(run)
    client.force_login(operator)
    pages = [client.get(f"{run.get_absolute_url()}sections/{number}/") for number in (1, 2)]
    assert [page.status_code for page in pages] == [200, 200]
    assert f"row-{step.seq}" in pages[1].text
