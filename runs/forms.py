"""Forms: what people send, checked, with errors that say what to do."""

from __future__ import annotations

from typing import Any

from django import forms

from runs.reading.starting import agent_choices, scenario_choices

MAX_QUESTION = 20_000
MAX_SAID = 2_000

REASONS = {
    "target": "wrong target",
    "risk": "too risky now",
    "evidence": "needs evidence",
    "elsewhere": "handled elsewhere",
}


class StartForm(forms.Form):
    """A question for an agent. `request_id` is made with the page: a form sent twice starts one run."""

    question = forms.CharField(
        max_length=MAX_QUESTION,
        widget=forms.Textarea,
        error_messages={"required": "Write what the agent should find out: the text of the alert is enough."},
    )
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
        self.fields["question"].validators = [self._not_too_long]

    @staticmethod
    def _not_too_long(value: str) -> None:
        if len(value) > MAX_QUESTION:
            raise forms.ValidationError(
                f"The question has {len(value):,} characters; at most {MAX_QUESTION:,} are taken. "
                "Shorten it: the agent reads logs and metrics itself."
            )


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
    why = forms.MultipleChoiceField(required=False, choices=list(REASONS.items()))
    say = forms.CharField(
        required=False,
        max_length=MAX_SAID,
        error_messages={"max_length": f"The reason may have at most {MAX_SAID:,} characters."},
    )
    confirm = forms.CharField(required=False, max_length=200)

    @property
    def reason(self) -> str:
        """The chips and the text as one reason, as the agent is told it."""
        chips = [REASONS[name].capitalize() for name in self.cleaned_data["why"]]
        parts = [f"{chip}." for chip in chips] + [self.cleaned_data["say"].strip()]
        return " ".join(part for part in parts if part)[:MAX_SAID]
