"""Of every field of every command: whether it holds text, which is masked, or structure, which decides and never is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import typing
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from reenact import events
from reenact.adapters.models.failures import _USUAL_STATUS
from reenact.adapters.models.openai_chat_answer import _BROKEN_STOPS, _STOPS
from reenact.adapters.models.providers import PROVIDERS
from reenact.adapters.tools import runner
from reenact.events.action import RequireAction, ResolveAction
from reenact.events.agent import AnswerModel, FailModel, SettleTool
from reenact.events.budget import Budget
from reenact.events.container import SetPolicy
from reenact.events.content import Failure, Native, Text, Thinking, ToolCall, Usage
from reenact.events.errors import BadInput
from reenact.events.image import CreateImage, ImageConfig
from reenact.events.ledger import SetBudget
from reenact.events.message import Command
from reenact.events.model import Credentials, ModelAnswer
from reenact.events.policy import Policy, ToolPolicy
from reenact.events.session import Definition, Overrides, Send, Waking
from reenact.events.tool import CallCheck
from reenact.secrets.forms import FEW
from reenact.secrets.texts import KINDS, MADE, WORDS, Kind, kinds_of
from reenact.secrets.vault import Vault
from reenact.tools import tool_calls

TABLE = """
AddImage: made container_id image_id created_at
Allot: made session_id principal_id ask spent want least at priced last seen made
AnswerModel: made call answer checks duration_ms cost
ApplyPolicy: made policy scope terms approval_required approval_timeout_s
AttachSession: name session_id
AwaitUsage: made session_id at
CancelAction: text reason; made action by cancel_job
CancelJob: text reason; made job_id
CloseSession: text reason
CreateContainer: made container_id created_at
CreateImage: name session_id config alias; made image_id container_id created_at
CreateSession: name session_id alias; made image_id container_id created_at
DeleteImage:
ExpireAction: made action
ExpireJob: made job_id
FailModel: text partial; made call attempt failure usage retry_in_ms duration_ms cost key select exhausted unasked
Interrupt: text reason
IssueToken: made action token
NoteCooldowns: made opened ended
ProveTool: text output; made tool happened
RaiseBudget: made session_id principal_id consent at
RecordCount: made count upto at entries done
RecordUsage: text metadata; name entry kind run_id job_id provider model tool holder; who principal_id session_id;
    made at input_tokens output_tokens total_tokens cost duration_ms heard
RecoverEffect: made effect attempt
RefuseAllotment: made ask breach
RegisterTools: made container_id created_at tools
ReleaseAllotment: made ask
RemoveBudget: made principal_id session_id at
RemoveImage: made image_id
RequireAction: text metadata; values payload; name key; made kind timeout_ms job_id tool token
ResolveAction: values resolution; made action at by digest token bound switched
ResolveTool: text output; made tool outcome
ReturnAllotment: made session_id ask spent kept at made
RevokeGrant: made action by
SelectModel: made call attempt select noted
Send: text content; name overrides; made job_id waking priority timeout_ms
SetBudget: name budget; made at counts opening
SetPolicy: name policy; made container_id created_at
SettleTool: text output; word error_type; made tool outcome duration_ms dropped_bytes
StartTool: text problem; made tool attempt at version effect timeout_s place approval
StopAgent: text reason
TakeAllotment: made ask grant
UpdateImage: made config updated_at base
WakeAgent: made waking
Amount: made tokens cost requests tools
Breach: made code limit of used wanted most why asks
Budget: name degrade_to; who scope_id principal_id session_id; made max_tokens_per_request max_tokens_daily
    max_tokens_monthly max_tokens_total max_cost_per_request max_cost_daily max_cost_monthly max_cost_total
    max_requests_per_minute max_requests_daily max_tool_calls_per_request max_tool_calls_daily warning_threshold
    exceed_strategy unpriced on_breach
BudgetSpec: made max_tokens max_cost max_tool_calls max_turns max_runtime_seconds unpriced on_breach
CallLimit: made limit whose of most degrades
CallCheck: text problem; made name effect approval timeout_s version arguments place
ConstraintPolicy: text reason; name name; made max_cost_per_request max_tokens_per_request max_tool_calls_per_turn
    max_turns
CooldownEnded: made model key whole
CooldownOpened: made model key whole code since until count
Cost: made amount table
Counted: made session_id principal_id used used_daily used_monthly spent spent_daily spent_monthly open whole
Definition: made image_version model params max_steps tools policy scope fallbacks approval_required
    approval_timeout_s terms
Failure: text message; word code; made retryable retry_after_s status tried available_at
File: text media_type name data url file_id
Grant: made amount until tokens_per_request cost_per_request tools_per_request needs_price per_job degrade degrade_to
    warned passed principal calls whose ahead
Image: text media_type data url
ImageConfig: text name description system_prompt metadata; name model fallbacks tools params workspace policy budget
    degrade_to; made max_steps approval_required approval_timeout_s
ModelAnswer: text parts model response_id stop_sequence request_id; word stop_reason; made usage
ModelParams: name thinking stop_sequences tool_choice; made max_tokens temperature
ModelPolicy: text reason; name model_patterns name; who allowed_scopes; made decision require_approval
    max_tokens_per_request
Native: text block text; word provider
Overrides: name model params policy fallbacks; made terms principal within origin
Place: made cwd env sandbox
Policy: name name version rules profile allow also_allow deny profiles profile_tools; made max_tool_calls_per_turn
    strict
Profile: name name tools
Price: made since input output
Raise: made action limit of most by principal
Rate: made model input output later
Selection: made model reason key because degraded
Terms: made spec ledger rates overhead degrade_to denies
Text: text text extra
Thinking: text thinking signature extra; word provider
ToolCall: text id invalid extra; values input; made name
ToolPolicy: text reason; name tool_patterns name; who allowed_scopes allowed_principals; made decision
ToolSpec: text description parameters; made name effect approval timeout_s version source
Tried: made provider model reason status key
Usage: made input_tokens output_tokens cache_read_tokens cache_write_tokens reasoning_tokens; word extra
Waking: made agent_id image_id container_id registered_at definition
"""
"""text: masked. values: masked but for the keys. word: masked where it is not reenact's own.
name: of a caller's, refused with a secret in it. who: likewise, and only with the runtime's own. made: left alone."""


def commands() -> list[type[Command]]:
    for module in pkgutil.iter_modules(events.__path__):
        importlib.import_module(f"{events.__name__}.{module.name}")
    return [each for each in Command.__subclasses__() if each.__module__.startswith(events.__name__)]


def held(annotation: Any, found: dict[type[Struct], None]) -> None:
    """A struct and all that its fields may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Struct) and annotation not in found:
        found[annotation] = None
        for each in typing.get_type_hints(annotation).values():
            held(each, found)
    for each in typing.get_args(annotation):
        held(each, found)


def kinds() -> dict[type[Struct], dict[str, str]]:
    found: dict[type[Struct], None] = {}
    for command in commands():
        held(command, found)
    listed = {
        each: {field: KINDS.get(each, {}).get(field, Kind.MADE).name.lower() for field in each.__struct_fields__}
        for each in found
    }
    assert not [each for each in found if each not in KINDS and each not in MADE and not issubclass(each, Command)]
    return listed


def table() -> dict[str, dict[str, str]]:
    lines = TABLE.strip().replace("\n    ", " ").splitlines()
    said = {}
    for line in lines:
        name, _, rest = line.partition(":")
        groups = [group.split() for group in rest.split(";") if group.strip()]
        said[name] = {field: kind for kind, *fields in groups for field in fields}
    return said


def test_of_every_field_of_every_command_it_is_said_whether_it_is_text_or_structure() -> None:
    assert len(commands()) > 40
    assert {each.__name__: fields for each, fields in kinds().items()} == table()


def test_a_field_that_nobody_thought_of_is_noticed() -> None:
    class Whisper(Command, frozen=True, kw_only=True):
        type = "whisper"
        words: str

    Whisper.__module__ = f"{events.__name__}.session"
    try:
        assert {each.__name__: fields for each, fields in kinds().items()} != table()
    finally:
        Whisper.__module__ = __name__


def test_every_field_that_is_listed_is_there() -> None:
    assert not [(each.__name__, field) for each, of in KINDS.items() for field in of.keys() - {*each.__struct_fields__}]


# -- what is masked, what is left alone, what is refused --

WORD = "send_money"
"""The name of a tool, of an option, of a model and a rule's pattern, and somebody's secret."""

RULES = Policy(deny=(WORD,), rules=(ToolPolicy(tool_patterns=(WORD,), allowed_principals=(WORD,)),))


def vault(**options: Any) -> Vault:
    known = Vault([], **options)
    known.add("n", WORD)
    return known


def test_what_an_agent_is_woken_with_is_left_alone_but_for_its_words() -> None:
    rule = replace(RULES.rules[0], reason=f"not {WORD}")
    policy = replace(RULES, rules=(rule,))
    definition = Definition(image_version=1, model=WORD, policy=(policy,), fallbacks=(WORD,), scope=WORD)
    waking = Waking(agent_id=WORD, image_id="i", container_id=WORD, registered_at=1, definition=definition)
    hidden = vault().hidden(Send(job_id=WORD, content=(Text(text=f"so {WORD}"),), waking=waking), refuse=True)
    wanted = replace(definition, policy=(replace(RULES, rules=(replace(rule, reason="not [secret:n]"),)),))
    assert hidden == Send(job_id=WORD, content=(Text(text="so [secret:n]"),), waking=replace(waking, definition=wanted))


def test_of_an_answer_the_words_are_masked_and_the_calls_that_run_stay_what_they_are() -> None:
    call = ToolCall(id="c", name=WORD, input={WORD: f"a {WORD}", "deep": {WORD: 1}})
    answer = ModelAnswer(parts=(Text(text=WORD), call), stop_reason="tool_use")
    command = AnswerModel(call="m1", answer=answer, checks=(CallCheck(name=WORD, problem=f"no {WORD}"),))
    hidden = vault().hidden(command)
    shown = replace(call, input={WORD: "a [secret:n]", "deep": {"[secret:n]": 1}})
    assert hidden.answer.parts == (Text(text="[secret:n]"), shown)
    assert hidden.checks == (CallCheck(name=WORD, problem="no [secret:n]"),)


def answered(word: str) -> AnswerModel:
    answer = ModelAnswer(
        parts=(Thinking(thinking="", provider=word), Native(provider=word, block={})),
        stop_reason=word,
        usage=Usage(output_tokens=4711, extra={word: 4711}),
    )
    return AnswerModel(call="m1", answer=answer)


def settled(word: str) -> SettleTool:
    return SettleTool(tool="t", outcome="error", output="", error_type=word)


def failed(word: str) -> FailModel:
    return FailModel(call="m1", attempt=1, failure=Failure(code=word, message=""))


@pytest.mark.parametrize("told", [answered, settled, failed])
def test_a_word_that_an_adapter_or_a_tool_made_up_is_text_and_one_of_reenact_s_own_is_not(told: Any) -> None:
    known = vault()
    known.add("count", "4711")
    assert known.hidden(told(WORD)) == told("[secret:n]")
    assert known.hidden(told(f"E_{WORD}")) == told("E_[secret:n]")
    for number, word in enumerate(sorted(WORDS)):
        known.add(f"w{number}", word)
    for word in WORDS:
        assert known.hidden(told(word)) == told(word)


def test_the_words_of_reenact_s_own_are_all_known() -> None:
    assert {*_STOPS.values(), *_BROKEN_STOPS.values(), *_USUAL_STATUS, *PROVIDERS} <= WORDS
    for room in (tool_calls, runner):
        made = re.findall(r"(?:error_type=|_Failed\()\"(\w+)\"", inspect.getsource(room))
        assert made and {*made} <= WORDS


CONFIG = ImageConfig(name="bot")
REFUSED: list[Command] = [
    SetPolicy(container_id="c", created_at=1, policy=RULES),
    SetBudget(budget=Budget(degrade_to=WORD, max_requests_daily=1), at=1),
    *(
        CreateImage(image_id="i", container_id="c", session_id="s", created_at=1, config=replace(CONFIG, **each))
        for each in ({"model": f"scripted:{WORD}"}, {"tools": (WORD,)}, {"workspace": f"/a/{WORD}"}, {"policy": RULES})
    ),
    Send(job_id="j", content=(), overrides=Overrides(policy=RULES)),
    RequireAction(kind="choose", timeout_ms=1, payload={"options": ["yes", WORD]}),
    RequireAction(kind="custom", timeout_ms=1, payload={WORD: 1}),
    ResolveAction(action="a1", resolution={"choice": WORD}, at=1, by="ann"),
]


@pytest.mark.parametrize("command", REFUSED)
def test_a_secret_in_a_name_or_a_rule_is_refused_where_a_caller_asks_and_never_rewritten(command: Command) -> None:
    with pytest.raises(BadInput, match="in a name, a rule or a setting") as refused:
        vault().hidden(command, refuse=True)
    assert WORD not in str(refused.value)
    assert vault().hidden(command) is command, "what happened is told whatever it is named"
    assert vault(scope="mine").hidden(command, "another", refuse=True) is command, "it is another's secret"


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("field", ["scope_id", "principal_id", "session_id"])
def test_whoever_is_meant_is_named_by_a_whole_secret_and_by_a_part_that_is_not_the_runtime_s_own(
    field: str, own: bool
) -> None:
    known = Vault([], scope="own")
    known.add("n", WORD, scope="default", common=own)
    limits = ({field: name, "max_requests_daily": 1} for name in (WORD, f"{WORD} 1"))
    whole, part = (SetBudget(budget=Budget(**each), at=1) for each in limits)
    assert known.hidden(whole, refuse=True) is whole
    if own:
        with pytest.raises(BadInput, match=rf"rule or a setting \({field}\)"):
            known.hidden(part, refuse=True)
    else:
        assert known.hidden(part, refuse=True) is part


def test_what_is_asked_of_a_person_keeps_its_fields_and_options_and_so_does_the_answer() -> None:
    known = Vault([])
    for number, word in enumerate(("approved", "message", "options", "always", "exact")):
        known.add(f"n{number}", word)
    asked = RequireAction(kind="confirm", timeout_ms=1, payload={"message": "is it approved?", "options": 1})
    assert known.hidden(asked).payload == {"message": "is it [secret:n0]?", "options": 1}
    said = ResolveAction(action="a1", resolution={"approved": True, "comment": "it is approved"}, at=1, by="approved")
    assert known.hidden(said, refuse=True).resolution == {"approved": True, "comment": "it is [secret:n0]"}


# -- whose --


def test_a_secret_of_one_scope_is_looked_for_in_its_texts_alone() -> None:
    known = Vault([])
    known.add("pin", "48213", scope="a")
    known.add("long", "a-long-secret-of-a", scope="a")
    text = "48213 a-long-secret-of-a"
    said = SettleTool(tool="t", outcome="ok", output=text)
    assert known.hidden(said, "a").output == "[secret:pin] [secret:long]"
    assert known.hidden(said, "b") is said and known.text(text, 0, "b") == text
    assert not known.holds(text, "b") and known.begins("so a-long-sec", 0, "b") is None
    assert known.is_plain("so a-long-sec", "", "b") and not known.is_plain("so a-long-sec", "", "a")
    assert known.message(text) == "48213 [secret:long]", "an error's message may go to any scope"
    assert known.log_line(text) == "[secret:pin] [secret:long]"


@pytest.mark.parametrize(("value", "everywhere"), [("f3/val9", False), ("f3/value", True), ("1" * 15, False)])
def test_what_is_the_runtime_s_own_is_looked_for_everywhere_unless_it_is_soon_found_by_trying(
    value: str, everywhere: bool
) -> None:
    known = Vault([], scope="own")
    known.add("n", value, scope="own", common=True)
    assert known.text(value, 0, "own") == "[secret:n]"
    assert known.text(value, 0, "other") == ("[secret:n]" if everywhere else value)


def test_one_value_of_two_scopes_is_shown_by_each_one_s_own_name_and_forgotten_by_each_alone() -> None:
    known = Vault([])
    known.add("mine", "the-same-long-value", scope="a")
    known.add("ours", "the-same-long-value", scope="b")
    assert [known.text("the-same-long-value", 0, each) for each in "abc"] == [
        *("[secret:mine]", "[secret:ours]", "the-same-long-value"),
    ]
    known._given["a", "the-same-long-value"] = None
    known._unknow("a", "the-same-long-value")
    assert known.text("the-same-long-value", 0, "a") == "the-same-long-value"
    assert known.text("the-same-long-value", 0, "b") == known.message("the-same-long-value") == "[secret:ours]"
    known._given["b", "the-same-long-value"] = None
    known._unknow("b", "the-same-long-value")
    assert known.message("the-same-long-value") == "the-same-long-value" and not len(known._forms)


def test_a_number_that_is_a_secret_is_masked_in_what_somebody_wrote_and_nowhere_else() -> None:
    known = Vault([])
    known.add("pin", "4711")
    known.add("zeros", "0815")
    known.add("long", "9" * 40)
    said = {"a": 4711, "b": [4711.0, 4712, 815, True, None, -4711, float("1e300")], "c": {"d": 10**40 - 1}}
    shown = {
        "a": "[secret:pin]",
        "b": ["[secret:pin]", 4712, 815, True, None, -4711, float("1e300")],
        "c": {"d": "[secret:long]"},
    }
    asked = RequireAction(kind="custom", timeout_ms=4711, payload=said)
    assert known.hidden(asked) == RequireAction(kind="custom", timeout_ms=4711, payload=shown)
    assert known.hidden(asked, "other") is asked
    bounds = RequireAction(kind="input", timeout_ms=1, payload={"max_length": 4711, "message": 4711})
    assert known.hidden(bounds).payload == {"max_length": 4711, "message": "[secret:pin]"}
    answer = ModelAnswer(parts=(ToolCall(id="c", name="n", input={"n": 4711}),), stop_reason="x", usage=None)
    hidden = known.hidden(AnswerModel(call="m1", answer=answer, duration_ms=4711))
    assert hidden.duration_ms == 4711 and hidden.answer.parts[0].input == {"n": "[secret:pin]"}
    for number in range(FEW * 2):
        known.add(f"n{number}", str(10_000 + number))
    assert known.hidden(asked).payload == shown


def test_a_number_is_forgotten_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reenact.secrets.vault.SECRETS_MAX", 2)
    known = Vault([])
    for number in (11111, 22222, 33333):
        known.given("p", Credentials(api_key=str(number)))
    assert known.hidden({"a": [11111, 22222, 33333]}) == {"a": [11111, "[secret:p_key]", "[secret:p_key]"]}


def test_a_struct_that_is_no_command_s_is_text_all_through() -> None:
    class Note(Struct):
        words: str

    assert kinds_of(Note(words="x"))("words") is Kind.TEXT
    assert vault().hidden(Note(words=WORD)) == Note(words="[secret:n]")
