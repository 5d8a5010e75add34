"""Forms: what people send, checked, with errors that say what to do."""

from __future__ import annotations

import re
from typing import Any

from django import forms

from runs.actions import ActionError, InvalidQuestion, checked_question
from runs.actions.approvals import MAX_REASON_CHARACTERS
from runs.actions.tags import checked_tags
from runs.models import WhatBecame
from runs.reading.starting import agent_choices, scenario_choices

REASONS = {
    "target": "wrong target",
    "risk": "too risky now",
    "evidence": "needs evidence",
    "elsewhere": "handled elsewhere",
}


class StartForm(forms.Form):
    """A question for an agent. `request_id` is made with the page: a form sent twice starts one run."""

    question = forms.CharField(required=False, widget=forms.Textarea)  # clean_question says what is wrong
    agent = forms.ChoiceField(
        error_messages={
            "required": "Choose an agent.",
            "invalid_choice": "There is no agent “%(value)s” here. Choose one of the list.",
        }
    )
    scenario = forms.ChoiceField(
        required=False,
        error_messages={"invalid_choice": "There is no incident “%(value)s”. Choose one of the list."},
    )
    tags = forms.CharField(required=False, max_length=1_000)
    request_id = forms.UUIDField(
        error_messages={"required": "Reload the page and send it again.", "invalid": "Reload the page."}
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = {"agent": agent_choices(), "scenario": scenario_choices()}
        for name, found in choices.items():
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)
            field.choices = found
        self.fields["question"].validators = []

    def clean_question(self) -> str:
        """The question as the action takes it; its sentence when it does not."""
        try:
            return checked_question(self.cleaned_data["question"])
        except InvalidQuestion as error:
            raise forms.ValidationError(str(error)) from error

    def clean_tags(self) -> list[str]:
        """The tags between commas and spaces; the sentence of the action when one cannot be."""
        try:
            return checked_tags(word for word in re.split(r"[,\s]+", self.cleaned_data["tags"]) if word)
        except ActionError as error:
            raise forms.ValidationError(str(error)) from error


class DecisionForm(forms.Form):
    """One vote. Revision and digest say which bytes were on the card that was decided."""

    verdict = forms.ChoiceField(
        choices=[("approve", "approve"), ("reject", "reject")],
        error_messages={
            "required": "Choose approve or reject.",
            "invalid_choice": "Choose approve or reject.",
        },
    )
    revision = forms.IntegerField(min_value=1)
    digest = forms.RegexField(r"^[0-9a-f]{64}$")
    seen = forms.CharField(required=False, max_length=200)  # signed: since when the card was before them
    why = forms.MultipleChoiceField(required=False, choices=list(REASONS.items()))
    say = forms.CharField(required=False)
    confirm = forms.CharField(required=False, max_length=200)

    def clean_say(self) -> str:
        """Browsers count a line break as one character and send two."""
        said: str = self.cleaned_data["say"]
        return said.replace("\r\n", "\n").strip()

    def clean(self) -> None:
        """The whole reason has to fit: what a person wrote is never cut silently."""
        super().clean()
        if not self.errors and len(self.reason) > MAX_REASON_CHARACTERS:
            self.add_error(
                "say",
                f"The reason has {len(self.reason):,} characters; at most {MAX_REASON_CHARACTERS:,} are "
                "taken. Shorten it.",
            )

    @property
    def reason(self) -> str:
        """The chips and the text as one reason, as the agent is told it."""
        chips = [f"{REASONS[name].capitalize()}." for name in self.cleaned_data["why"]]
        return " ".join(part for part in (*chips, self.cleaned_data["say"]) if part)


class ResolutionForm(forms.Form):
    """What a person found out about a call whose outcome was unknown."""

    verdict = forms.ChoiceField(
        choices=WhatBecame.choices,
        error_messages={
            "required": "Choose what became of it.",
            "invalid_choice": "Choose what became of it: it happened, it did not happen, or abandon it.",
        },
    )
    evidence = forms.CharField(
        max_length=MAX_REASON_CHARACTERS,
        error_messages={
            "required": "Say how you know: what you looked at, and what you saw. Nothing was recorded.",
            "max_length": f"At most {MAX_REASON_CHARACTERS:,} characters of evidence are taken. Shorten it.",
        },
    )

    @property
    def draft(self) -> str:
        """What was written, to be shown again."""
        return str(self.data.get("evidence", ""))
