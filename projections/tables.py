"""The tables that a log is laid out in for SQL: their columns, and the views on them. Text only.

Three tables are filled, everything else is a view on them, so nothing can fall out of step. Times are UTC.

facts          every event, with what the audit says of it; read it as `events` and as `audit`
ledger_calls   the end of every model call, with its tokens and its cost; and what programs told a ledger
tool_calls     the end of every tool call; and what programs told a ledger
"""

from __future__ import annotations

SCHEMA = 5
"""Raised whenever the same log would be laid out otherwise: files of another schema are built anew."""

FACTS = {
    "position": "BIGINT",
    "ts": "TIMESTAMP",  # `at` is a reserved word
    "type": "VARCHAR",
    "stream": "VARCHAR",
    "version": "BIGINT",
    "batch": "VARCHAR",
    "part": "BIGINT",
    "correlation_id": "VARCHAR",
    "causation_id": "VARCHAR",
    "scope": "VARCHAR",
    "principal": "VARCHAR",
    "container_id": "VARCHAR",
    "image_id": "VARCHAR",
    "session_id": "VARCHAR",
    "agent_id": "VARCHAR",
    "job_id": "VARCHAR",
    "source": "VARCHAR",
    "category": "VARCHAR",
    "data": "VARCHAR",
    "audit_type": "VARCHAR",
    "status": "VARCHAR",
    "resource_type": "VARCHAR",
    "resource_id": "VARCHAR",
    "duration_ms": "BIGINT",
    "details": "VARCHAR",
    "error_code": "VARCHAR",
    "error_message": "VARCHAR",
    "tags": "VARCHAR[]",
}

_OF_USE = {
    "position": "BIGINT",
    "ts": "TIMESTAMP",
    "scope": "VARCHAR",
    "principal": "VARCHAR",
    "container_id": "VARCHAR",
    "image_id": "VARCHAR",
    "session_id": "VARCHAR",
    "agent_id": "VARCHAR",
    "job_id": "VARCHAR",
}

LEDGER_CALLS = {
    **_OF_USE,
    "call": "VARCHAR",
    "attempt": "BIGINT",
    "asked": "VARCHAR",
    "provider": "VARCHAR",
    "model": "VARCHAR",
    "stop_reason": "VARCHAR",
    "failure": "VARCHAR",
    "input_tokens": "BIGINT",
    "output_tokens": "BIGINT",
    "cache_read_tokens": "BIGINT",
    "cache_write_tokens": "BIGINT",
    "reasoning_tokens": "BIGINT",
    "amount": "DECIMAL(38,18)",
    "unpriced": "BOOLEAN",
    "price_table": "VARCHAR",
    "duration_ms": "BIGINT",
}

TOOL_CALLS = {
    **_OF_USE,
    "tool": "VARCHAR",
    "name": "VARCHAR",
    "effect": "VARCHAR",
    "outcome": "VARCHAR",
    "error_type": "VARCHAR",
    "proof": "VARCHAR",
    "runs": "BIGINT",
    "duration_ms": "BIGINT",
}

TABLES = {"facts": FACTS, "ledger_calls": LEDGER_CALLS, "tool_calls": TOOL_CALLS}

_ENDED = "('job_succeeded', 'job_failed', 'job_cancelled', 'job_timed_out')"

_DECIDED = "('action_resolved', 'action_expired', 'action_cancelled')"
_ASKED = "any_value(data ->> '$.{}') FILTER (type = 'action_required')"

_USD = "({}::DECIMAL(38, 9) / 1000000000)::DECIMAL(38, 9)"  # of nano-dollars

VIEWS = {
    "events": """
        SELECT position, ts, type, stream, version, batch || '-' || part AS id, correlation_id, causation_id, scope,
            principal, container_id, image_id, session_id, agent_id, job_id, source, category, data::JSON AS data
        FROM facts""",
    "audit": """
        SELECT position, batch || '-' || part AS id, ts, audit_type AS type, status, correlation_id,
            principal AS user_id, session_id, agent_id, job_id AS request_id, resource_type, resource_id,
            duration_ms, error_code, error_message, details::JSON AS details, tags, type AS event, source, scope,
            container_id, image_id
        FROM facts""",
    "jobs": f"""
        SELECT job_id, session_id, any_value(image_id) AS image_id,
            any_value(container_id) AS container_id, any_value(scope) AS scope,
            CASE arg_max(type, position) FILTER (resource_type = 'job')
                WHEN 'job_queued' THEN 'queued' WHEN 'job_waiting' THEN 'waiting'
                WHEN 'job_succeeded' THEN 'succeeded' WHEN 'job_failed' THEN 'failed'
                WHEN 'job_cancelled' THEN 'cancelled' WHEN 'job_timed_out' THEN 'timed_out' ELSE 'running' END AS state,
            left(arg_min(data, position) FILTER (type = 'job_queued') ->> '$.content[0].text', 200) AS text,
            min(ts) AS queued_ts, min(ts) FILTER (type = 'job_started') AS started_ts,
            max(ts) FILTER (type IN {_ENDED}) AS ended_ts,
            count(*) FILTER (type = 'turn_started') AS turns, count(*) FILTER (type = 'model_called') AS attempts,
            count(*) FILTER (type = 'tool_started') AS tool_runs,
            arg_max(error_code, position) FILTER (type IN {_ENDED}) AS error_code
        FROM facts WHERE job_id IS NOT NULL GROUP BY session_id, job_id HAVING bool_or(resource_type = 'job')""",
    "sessions": """
        SELECT substr(stream, 9) AS session_id, any_value(image_id) AS image_id,
            any_value(container_id) AS container_id, any_value(scope) AS scope, min(ts) AS created_ts,
            max(ts) AS last_ts, count(*) AS events, count(DISTINCT job_id) AS jobs,
            count(*) FILTER (type = 'turn_started') AS turns,
            coalesce(arg_max(type, position) FILTER (type IN ('agent_registered', 'agent_unregistered'))
                = 'agent_registered', false) AS awake,
            bool_or(type = 'session_closed') AS closed
        FROM facts WHERE starts_with(stream, 'session-') GROUP BY stream""",
    "actions": f"""
        SELECT session_id || ':' || (data ->> '$.action') AS action_id, session_id, any_value(image_id) AS image_id,
            any_value(container_id) AS container_id, any_value(scope) AS scope,
            {_ASKED.format("kind")} AS kind, {_ASKED.format("tool")} AS tool, {_ASKED.format("reason")} AS reason,
            {_ASKED.format("jobId")} AS job_id,
            CASE arg_max(type, position) FILTER (type IN {_DECIDED})
                WHEN 'action_resolved' THEN 'resolved' WHEN 'action_expired' THEN 'expired'
                WHEN 'action_cancelled' THEN 'cancelled' ELSE 'pending' END AS state,
            (any_value(data ->> '$.resolution.approved') FILTER (type = 'action_resolved'))::BOOLEAN AS approved,
            any_value(data ->> '$.by') FILTER (type IN {_DECIDED}) AS decided_by,
            any_value(data ->> '$.resolution.comment') FILTER (type = 'action_resolved') AS comment,
            any_value(data ->> '$.digest') FILTER (type = 'action_required') AS digest,
            min(ts) FILTER (type = 'action_required') AS asked_ts, max(ts) FILTER (type IN {_DECIDED}) AS ended_ts
        FROM facts WHERE type = 'action_required' OR type IN {_DECIDED}
        GROUP BY session_id, data ->> '$.action'""",
    "denials": """
        SELECT position, ts, scope, principal, container_id, image_id, session_id, job_id, type,
            coalesce(data ->> '$.tool', data ->> '$.call', data ->> '$.tools[0]') AS call,
            coalesce(data ->> '$.rule', data ->> '$.breach.limit') AS rule,
            coalesce(data ->> '$.reason', error_message) AS reason, data ->> '$.policy' AS policy,
            data ->> '$.version' AS policy_version
        FROM facts
        WHERE type IN ('tool_denied', 'model_denied', 'budget_exceeded')
            OR (type = 'allotment_denied' AND starts_with(data ->> '$.sessionId', 'reserved:'))""",
    "reservations": f"""
        SELECT aside.position, aside.ts, aside.scope, aside.principal, aside.container_id, aside.image_id,
            aside.session_id, aside.job_id, aside.call, ended.model,
            CASE WHEN ended.position IS NOT NULL THEN 'settled' WHEN aside.again IS NOT NULL THEN 'lost' ELSE 'open' END
                AS state,
            aside.tokens, {_USD.format("aside.cost")} AS amount, aside.max_tokens,
            ended.input_tokens + ended.output_tokens AS spent_tokens, ended.amount AS spent_amount, ended.failure,
            ended.ts AS ended_ts
        FROM (
            SELECT *, data ->> '$.call' AS call, (data ->> '$.tokens')::BIGINT AS tokens,
                (data ->> '$.cost')::BIGINT AS cost, (data ->> '$.maxTokens')::BIGINT AS max_tokens,
                lead(position) OVER (PARTITION BY session_id, data ->> '$.call' ORDER BY position) AS again
            FROM facts WHERE type = 'budget_reserved'
        ) AS aside
        LEFT JOIN ledger_calls AS ended
            ON ended.session_id = aside.session_id AND ended.call = aside.call AND ended.position > aside.position
            AND ended.failure IS DISTINCT FROM 'lost'
            AND (aside.again IS NULL OR ended.position < aside.again)""",
}
