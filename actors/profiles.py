"""Names that stand for tools: profiles, groups and aliases, and a policy with all of them written out. Pure.

What decides is written out before it is put to use and recorded so, for a group may have other members one day and what
was decided must be decided alike again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from msgspec.structs import replace

from ..events.errors import BadInput
from ..events.policy import NAME_CHARS_MAX, Policy, PolicyRule, ToolPolicy

GROUPS: Mapping[str, tuple[str, ...]] = {
    "fs": ("read", "write", "edit", "apply_patch", "list_directory"),
    "runtime": ("exec", "process"),
    "web": ("web_search", "web_fetch"),
    "memory": ("memory_search", "memory_get", "memory_store", "memory_update"),
    "sessions": ("sessions_list", "sessions_history", "sessions_send", "sessions_spawn", "session_status", "subagents"),
    "messaging": ("message", "email", "send_email", "send_notification"),
    "canvas": ("canvas", "update_workflow", "add_node", "remove_node", "connect_nodes"),
    "ui": ("browser", "canvas"),
    "automation": ("cron", "gateway"),
    "nodes": ("nodes",),
    "agents": ("agents_list",),
    "media": ("image", "image_generate", "video_generate", "music_generate", "tts"),
}
"""Group -> its tools; written `group:fs`. A group that is not here is refused, for a rule on it would rule nothing."""

PROFILES: Mapping[str, tuple[str, ...]] = {
    "minimal": ("read", "web_search", "web_fetch", "memory_search", "memory_get"),
    "coding": ("group:fs", "group:web", "group:memory"),
    "messaging": ("read", "group:messaging", "group:web", "group:memory"),
    "full": ("*",),
}
"""The profiles there are from the start. A policy may bring others, and none of these names."""

ALIASES: Mapping[str, str] = {"bash": "exec", "apply-patch": "apply_patch"}
"""Another name of a tool -> its name. A rule on either is on both."""

COVERS: Mapping[str, str] = {"write": "apply_patch"}
"""Who may do the one may do the other, and who may not, may not."""


def resolve(layers: Sequence[Policy]) -> tuple[Policy, ...]:
    """These layers with every profile, group and alias written out. Doing it twice changes nothing.

    Raises BadInput, naming the policy, for a profile or a group there is not, and for a profile of a taken name: were a
    layer to bring another `shop` than the one around it, those under it could be given more by it.
    """
    known: dict[str, tuple[str, ...]] = dict(PROFILES)
    brought: dict[str, str] = {}
    written = []
    for layer in layers:
        for profile in layer.profiles:
            if profile.name in PROFILES:
                raise BadInput(f"policy {layer.name}: profiles: {profile.name!r} is there from the start.")
            if known.setdefault(profile.name, profile.tools) != profile.tools:
                where = f"is another one in policy {brought[profile.name]}; give it another name"
                raise BadInput(f"policy {layer.name}: profiles: {profile.name!r} {where}.")
            brought.setdefault(profile.name, layer.name)
        written.append(_written(layer, known))
    return tuple(written)


def _written(layer: Policy, profiles: Mapping[str, tuple[str, ...]]) -> Policy:
    tools = layer.profile_tools
    if layer.profile is not None and tools is None:
        offered = profiles.get(layer.profile)
        if offered is None:
            raise BadInput(f"policy {layer.name}: profile: there is no {layer.profile!r}; there are {_list(profiles)}.")
        tools = _names(layer, "profile", (*offered, *layer.also_allow))
    return replace(
        layer,
        rules=tuple(_rule(layer, rule) for rule in layer.rules),
        allow=None if layer.allow is None else _names(layer, "allow", layer.allow),
        also_allow=(),
        deny=_names(layer, "deny", layer.deny, taking=True),
        profiles=(),
        profile_tools=tools,
    )


def _rule(layer: Policy, rule: PolicyRule) -> PolicyRule:
    if not isinstance(rule, ToolPolicy):
        return rule
    return replace(rule, tool_patterns=_names(layer, "tool_patterns", rule.tool_patterns, taking=True))


def _names(layer: Policy, field: str, patterns: Iterable[str], *, taking: bool = False) -> tuple[str, ...]:
    """All that a list stands for. taking: it takes tools away, so a glob reaches whatever it could mean."""
    found: dict[str, None] = {}
    for each in patterns:
        pattern = each.casefold()
        group = _group(layer, field, pattern)
        for name in (pattern,) if group is None else group:
            found[name] = None
            if name != "*":
                found.update(dict.fromkeys(_also(name, glob=taking)))
    return tuple(found)


def _group(layer: Policy, field: str, pattern: str) -> tuple[str, ...] | None:
    mark, _, group = pattern.partition(":")
    if mark != "group":
        return None
    if group == "openclaw":
        return tuple(dict.fromkeys(name for members in GROUPS.values() for name in members))
    if group not in GROUPS:
        raise BadInput(f"policy {layer.name}: {field}: there is no group {group!r}; there are {_list(GROUPS)}.")
    return GROUPS[group]


def _also(pattern: str, *, glob: bool) -> list[str]:
    """The other names of what a pattern names."""
    names = [pattern]
    for name, covered in COVERS.items():
        if pattern == name or (glob and fnmatchcase(name, pattern)):
            names.append(covered)
    for alias, name in ALIASES.items():
        if any(each in (alias, name) or (glob and _either(each, alias, name)) for each in names):
            names += (alias, name)
    return names[1:]


def _either(pattern: str, alias: str, name: str) -> bool:
    return fnmatchcase(alias, pattern) or fnmatchcase(name, pattern)


def unknown_names(policy: Policy, tools: Collection[str]) -> tuple[str, ...]:
    """Names in a policy that no tool has, neither one of `tools` nor one that a group knows. A glob names nothing."""
    known = {name.casefold() for name in _known(tools)}
    lists = [*(policy.allow or ()), *policy.also_allow, *policy.deny]
    lists += [name for profile in policy.profiles for name in profile.tools]
    lists += [name for rule in policy.rules if isinstance(rule, ToolPolicy) for name in rule.tool_patterns]
    named = (each for each in lists if not each.casefold().startswith("group:") and not set(each) & set("*?["))
    return tuple(dict.fromkeys(each for each in named if each.casefold() not in known))


def nearest(name: str, tools: Collection[str]) -> str | None:
    """The name that somebody may have meant: one of `tools`, or one that a group knows. None where none is near."""
    close = get_close_matches(name[:NAME_CHARS_MAX], sorted(_known(tools)), n=1, cutoff=0.7)
    return close[0] if close else None


def _known(tools: Collection[str]) -> set[str]:
    members = (name for members in GROUPS.values() for name in members)
    return {*tools, *members, *ALIASES, *ALIASES.values()}


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


__all__ = ["ALIASES", "GROUPS", "PROFILES", "nearest", "resolve", "unknown_names"]
