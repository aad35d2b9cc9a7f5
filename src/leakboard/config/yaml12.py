"""YAML 1.2, which is what dvc reads and writes: `on` and `no` are words, `1e-3` is a number, `010` is ten.

Refused is what two readers may take for two things: a key that stands twice or is no word, and aliases, of which a few
lines make gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

from leakboard.errors import brief, one_line

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where it is: ten times as fast
WORD = "tag:yaml.org,2002:str"
DEEPEST = 40  # mappings and lists within one another; libyaml's composer has no limit and ends the process


class Yaml12(_SafeLoader):
    """`yaml.load(text, Loader=Yaml12)`: the values that dvc would take from the same text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":int"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Node, deep: bool = False) -> dict[Any, Any]:
        """YAMLError where a key is no word or stands twice."""
        seen = set()
        for key, _ in node.value if isinstance(node, MappingNode) else ():
            if not isinstance(key, ScalarNode) or key.tag != WORD:
                found = brief(key.value) if isinstance(key, ScalarNode) else "a list or mapping"
                raise _fault(f"found {found} as a key, expected a word", key)
            if key.value in seen:
                raise _fault(f"found the key {brief(key.value)} twice, expected it once", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parsed(text: str) -> Any:
    """The values in a text; yaml.YAMLError where it is no YAML or one of what is refused, see `said`."""
    depth = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _fault(f"found the alias *{event.anchor}, expected what it stands for: no aliases are read", event)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise _fault(f"found values too deep, expected at most {DEEPEST} within one another", event)
    return yaml.load(text, Loader=Yaml12)


def said(error: yaml.YAMLError) -> str:
    """What is wrong, in one line that starts with the place."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
    return (f"line {mark.line + 1}: " if mark is not None else "") + one_line(str(problem))


def _fault(problem: str, at: Any) -> ConstructorError:
    return ConstructorError(None, None, problem, at.start_mark)


def _careful(make: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A constructor whose errors name the place: of numbers and dates that are none."""

    def construct(loader: Any, node: Any) -> Any:
        try:
            return make(loader, node)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            kind = node.tag.rsplit(":", 1)[-1]
            raise _fault(f"found {brief(node.value)}, which is no {kind}: {error}", node) from None

    return construct


Yaml12.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:[Tt]rue|TRUE|[Ff]alse|FALSE)$"), list("tTfF"))
Yaml12.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789"))
Yaml12.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN))$"),
    list("-+.0123456789"),
)
Yaml12.add_constructor("tag:yaml.org,2002:int", _careful(lambda loader, node: int(node.value)))
for kind in ("bool", "float", "timestamp", "binary"):
    tag = f"tag:yaml.org,2002:{kind}"
    Yaml12.add_constructor(tag, _careful(_SafeLoader.yaml_constructors[tag]))
