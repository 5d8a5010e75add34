"""Whatever is very long is shown by its beginning, everywhere and also live, with all of it one link away."""

from __future__ import annotations

import html
import json
import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from runs.live_run import RunLook
from runs.models import Run, Step
from runs.reading.payloads import BEGINNINGS
from tests.factories import a_run, rows
from tests.long_runs import a_long_run

pytestmark = pytest.mark.django_db

LONG = 240_009
BOUND = 1.2 * BEGINNINGS["answer"]  # of one text with its markup


@pytest.fixture
def page(client: Client, operator: User) -> Client:
    """Olga's browser."""
    client.force_login(operator)
    return client


def long_text(word: str, length: int = LONG) -> str:
    """Paragraphs that say where they are."""
    text = "\n\n".join(f"{word} {number}: {'so it is, ' * 8}" for number in range(length // 80))
    return text[: length - len(word) - 1] + f"\n{word[::-1]}"


def of(address: str, page: Client) -> str:
    response = page.get(address)
    assert response.status_code == 200, address
    return html.unescape(response.content.decode())


def whole(address: str, page: Client) -> str:
    response = page.get(address)
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    return b"".join(response.streaming_content).decode()  # type: ignore[arg-type]


def test_a_very_long_answer_is_shown_by_its_beginning_live_and_after_a_reload(
    page: Client, operator: User
) -> None:
    run, answer = a_long_run(3), long_text("Answer")
    plain = len(of(run.get_absolute_url(), page))
    Run.objects.filter(pk=run.pk).update(final_response=answer)
    shown = of(run.get_absolute_url(), page)
    assert len(shown) - plain < BOUND
    assert "Answer 0:" in shown and "rewsnA" not in shown
    assert "The first 10,000 of 240,009 characters." in shown
    link = re.search(r'href="([^"]+/texts/answer)"', shown)
    assert link and whole(link[1], page) == answer
    saved = page.get(f"{link[1]}?download")
    assert saved.headers["Content-Disposition"] == f'attachment; filename="run-{run.pk}-answer.txt"'
    live = html.unescape(RunLook(rows(run)[0], None, False, operator).drawn("runs/run.html#verdict"))
    assert re.findall(r'<div class="answer">.*?</p>\s', live, re.S) == re.findall(
        r'<div class="answer">.*?</p>\s', shown, re.S
    )
    assert len(live) < BOUND


def test_a_page_is_no_longer_than_its_items_times_a_bound(page: Client) -> None:
    run = a_long_run(12)
    plain = len(of(f"{run.get_absolute_url()}?step=1", page))
    Run.objects.filter(pk=run.pk).update(
        user_query=long_text("Question"),
        final_response=long_text("Answer"),
        explanation=long_text("Because"),
        status="failed",
    )
    said = {name: long_text(name) for name in ("reasoning", "text", "error")}
    Step.objects.filter(run=run).update(**said)
    Step.objects.filter(run=run, seq=2).update(kind="note", text=long_text("note"))
    tree = json.dumps({f"{n} {'key ' * 500}": "x" * 5_000 for n in range(40)})
    Step.objects.filter(run=run, kind="tool").update(arguments=tree, result=json.dumps(long_text("result")))
    texts = {1: 3, 2: 2, 3: 1}  # of the panel, beside question (twice as long), answer and explanation
    for seq, count in texts.items():
        for view in ("", "&view=conversation"):
            address = f"{run.get_absolute_url()}?step={seq}{view}"
            bound = plain + BOUND * (4 + count) + (12 * 7_500 if view else 0) + (240_000 if seq == 3 else 0)
            assert len(of(address, page)) < bound, address
    for part, text in (said | {"text": long_text("text")}).items():
        link = f"{run.get_absolute_url()}steps/1/{part}"
        assert link in of(f"{run.get_absolute_url()}?step=1", page)
        assert whole(link, page) == text
    assert f"{run.get_absolute_url()}steps/2/text" in of(f"{run.get_absolute_url()}?step=2", page)
    for part, text in {"question": "Question", "explanation": "Because"}.items():
        assert whole(f"{run.get_absolute_url()}texts/{part}", page) == long_text(text)
    assert page.get(f"{run.get_absolute_url()}texts/config").status_code == 404


def test_lists_and_comparisons_show_a_part_of_what_is_long(page: Client) -> None:
    one, other = a_long_run(3), a_long_run(3)
    plain = (
        len(of("/?q=", page)),
        len(of(f"/runs/compare/?left={one.request_id}&right={other.request_id}", page)),
    )
    texts = {"user_query": long_text("Question"), "explanation": long_text("Because"), "status": "failed"}
    Run.objects.filter(pk=one.pk).update(final_response=long_text("Answer"), **texts)
    Run.objects.filter(pk=other.pk).update(final_response=f"{long_text('Answer')}, and more", **texts)
    assert len(of("/?q=", page)) < plain[0] + 2 * 1_000
    compared = of(f"/runs/compare/?left={one.request_id}&right={other.request_id}", page)
    assert len(compared) < plain[1] + 2_000
    assert "The first 20,000 characters are the same. The rest differs." in compared


def test_what_fits_is_shown_whole_without_a_link(page: Client) -> None:
    run = a_run()
    Run.objects.filter(pk=run.pk).update(final_response="é" * BEGINNINGS["answer"], status="succeeded")
    assert "texts/answer" not in of(run.get_absolute_url(), page)
