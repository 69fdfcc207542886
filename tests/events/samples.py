"""One sample of every stored event, every field set. The golden bytes are made of these."""

from reenact.events import agent, container, image, policy, session
from reenact.events.content import Cost, Failure, File, Image, Native, Text, Thinking, ToolCall, Tried, Usage
from reenact.events.message import Event
from reenact.events.model import ModelParams
from reenact.events.tool import ToolSpec

PARAMS = ModelParams(max_tokens=1000, temperature=0.5, thinking="low", stop_sequences=("END",), tool_choice="auto")
USAGE = Usage(
    input_tokens=30,
    output_tokens=20,
    cache_read_tokens=10,
    cache_write_tokens=5,
    reasoning_tokens=7,
    extra={"web_search_requests": 1},
)
COST = Cost(amount="0.001234", table="prices 1.2.3")
FAILURE = Failure(
    code="rate_limit",
    message="Slow down.",
    retryable=True,
    retry_after_s=1.5,
    status=429,
    tried=(Tried(provider="scripted", model="echo", reason="rate_limit", status=429, key="1a2b3c4d"),),
    available_at=1_700_000_030_000,
)
POLICY = policy.Policy(
    name="production",
    version="3",
    rules=(
        policy.ToolPolicy(
            tool_patterns=("pay_*",), decision="require_approval", reason="Money.", allowed_scopes=("acme",), name="pay"
        ),
        policy.ModelPolicy(
            model_patterns=("gpt-*",),
            decision="warn",
            require_approval=True,
            max_tokens_per_request=1000,
            allowed_scopes=("acme",),
            reason="Dear.",
            name="big",
        ),
        policy.ConstraintPolicy(
            max_cost_per_request="0.5",
            max_tokens_per_request=2000,
            max_tool_calls_per_turn=5,
            max_turns=9,
            reason="Enough.",
            name="limits",
        ),
    ),
    profile="shop",
    allow=("refund",),
    also_allow=("book",),
    deny=("exec",),
    max_tool_calls_per_turn=4,
    strict=True,
    profiles=(policy.Profile(name="shop", tools=("refund", "group:web")),),
    profile_tools=("refund", "web_search", "web_fetch"),
)
DEFINITION = session.Definition(
    image_version=2,
    model="anthropic:claude-sonnet-5-5",
    params=PARAMS,
    max_steps=9,
    tools="sha256:00",
    policy=(POLICY,),
    scope="acme",
    fallbacks=("openai:gpt-5.5",),
)
OVERRIDES = session.Overrides(model="scripted:echo", params=PARAMS, policy=POLICY, fallbacks=("scripted:hello",))
SPEC = ToolSpec(
    name="refund",
    description="Refund an order.",
    parameters={"type": "object", "properties": {"order": {"type": "string"}}},
    effect="idempotent",
    approval="ask",
    timeout_s=30.0,
    version="sha256:11",
    source="shop.py",
)
INPUT = (
    Text(text="Grüße, 世界", extra={"a": 1}),
    Image(media_type="image/png", data="aGk=", url="https://example.com/a.png"),
    File(media_type="text/plain", name="a.txt", data="aGk=", url="https://example.com/a.txt", file_id="file_1"),
)
OUTPUT = (
    Thinking(thinking="hm", provider="anthropic", signature="sig", extra={"b": [1, 2.5, None, True]}),
    Text(text="Well.", extra=None),
    ToolCall(id="call_1", name="refund", input={"order": "42", "deep": {"n": [1, "x"]}}, invalid="{", extra={"c": 1}),
    Native(provider="anthropic", block={"type": "server_tool_use"}, text="searched"),
)

SAMPLES: tuple[Event, ...] = (
    container.ContainerCreated(container_id="acme", created_at=1_700_000_000_000),
    container.ImageAdded(image_id="img_1"),
    container.ImageRemoved(image_id="img_1"),
    container.ToolRegistered(tool=SPEC),
    image.ImageCreated(
        image_id="img_1",
        container_id="acme",
        session_id="sess_1",
        created_at=1_700_000_000_000,
        config=image.ImageConfig(
            name="support",
            description="Answers customers.",
            system_prompt="Be kind.",
            model="scripted:echo",
            fallbacks=("scripted:hello",),
            tools=("refund",),
            params=PARAMS,
            max_steps=9,
            workspace="/tmp/x",
            metadata={"team": "a"},
        ),
        alias="support",
    ),
    image.ImageUpdated(version=2, updated_at=1_700_000_000_001, config=image.ImageConfig()),
    image.SessionAttached(session_id="sess_2"),
    image.ImageDeleted(image_id="img_1"),
    session.SessionCreated(
        session_id="sess_1", image_id="img_1", container_id="acme", created_at=1_700_000_000_000, alias="monday"
    ),
    session.SessionClosed(reason="image_deleted"),
    session.JobQueued(job_id="job_1", content=INPUT, overrides=OVERRIDES, priority=3, timeout_ms=5000),
    session.JobStarted(job_id="job_1", overrides=OVERRIDES),
    session.JobWaiting(job_id="job_1", tool="t1", reason="outcome unknown"),
    session.JobResumed(job_id="job_1"),
    session.JobSucceeded(job_id="job_1"),
    session.JobFailed(job_id="job_1", failure=FAILURE),
    session.JobCancelled(job_id="job_1", reason="user_cancel"),
    session.JobTimedOut(job_id="job_1"),
    session.JobStopping(job_id="job_1", reason="user_interrupt"),
    agent.AgentRegistered(container_id="acme", agent_id="agent_1", image_id="img_1", registered_at=1_700_000_000_000),
    agent.AgentConfigured(definition=DEFINITION),
    agent.AgentUnregistered(container_id="acme", agent_id="agent_1", reason="stopped"),
    agent.TurnStarted(turn=1, job_id="job_1"),
    agent.TurnCompleted(turn=1, reason="error", stop_reason="end_turn", failure=FAILURE, steps=2),
    agent.ModelSelected(
        model="scripted:hello",
        provider="scripted",
        reason="fallback",
        key="1a2b3c4d",
        because="overloaded",
        call="m1",
        attempt=1,
    ),
    agent.ModelCalled(
        call="m1",
        attempt=2,
        upto=8,
        image_version=2,
        model="scripted:echo",
        context="sha256:22",
        params=PARAMS,
        wait_ms=500,
    ),
    agent.ModelAnswered(
        call="m1",
        parts=OUTPUT,
        stop_reason="tool_use",
        usage=USAGE,
        model="claude-sonnet-5-5",
        response_id="msg_1",
        stop_sequence="END",
        duration_ms=120,
        cost=COST,
    ),
    agent.ModelFailed(
        call="m1",
        attempt=1,
        failure=FAILURE,
        partial=OUTPUT[:2],
        usage=USAGE,
        retry_in_ms=500,
        duration_ms=12,
        cost=COST,
        key="1a2b3c4d",
        advance=True,
        exhausted=True,
    ),
    agent.ToolRequested(
        tool="t1",
        call="m1",
        part=2,
        name="refund",
        effect="idempotent",
        timeout_s=30.0,
        version="sha256:11",
        problem="x",
    ),
    agent.ToolAuthorised(tool="t1", decision="allow", rule="default"),
    agent.ToolStarted(tool="t1", attempt=1, arguments="sha256:33"),
    agent.ToolDoubted(tool="t1", attempt=1),
    agent.ToolUnproved(tool="t1"),
    agent.ToolSettled(
        tool="t1",
        outcome="ok",
        output=(Text(text="done"), Image(media_type="image/png", data="aGk=")),
        error_type="ValueError",
        duration_ms=5,
        dropped_bytes=1,
        proof="probe",
    ),
    policy.ToolDenied(tool="t1", rule="deny", reason="No shell.", policy="production", version="3", attempt=2),
    policy.ModelWarned(call="m1", model="openai:gpt-5.5", rule="big", reason="Dear.", policy="production", version="3"),
    policy.ModelDenied(
        call="m1",
        attempt=2,
        model="openai:gpt-5.5",
        rule="rule 1",
        reason="Too dear.",
        policy="production",
        version="3",
    ),
)
