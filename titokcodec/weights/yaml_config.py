"""Settings in YAML: names, lists and plain values. What else YAML can do, a config from a stranger may not.

No anchors and aliases, by which a page can mean a library; no tags, by which a value asks for a kind that it does not
have. The events of pyyaml's parser are taken as they come, so nothing is built of what is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from titokcodec.errors import WeightsError

if TYPE_CHECKING:
    import yaml

LARGEST = 1 << 15  # bytes; a published config has one or two thousand, and pyyaml reads some 50 KB a second
DEEPEST = 32  # lists and names within each other
LARGEST_NUMBER = 1 << 63  # larger ones are no setting, and may be too long to be shown


def parse_yaml(text: bytes) -> Any:
    """The one document of a YAML file: dictionaries with plain keys, lists, texts, numbers, booleans and None.

    Raises:
        WeightsError: pyyaml is missing, or there is too much of it.
        ValueError: it is no YAML, or has anchors, aliases, tags, several documents, or too much within each other.
    """
    if len(text) > LARGEST:
        raise WeightsError(f"more than {LARGEST} bytes are no config: give the one that came with the checkpoint")
    try:
        import yaml
    except ImportError:
        raise WeightsError("a YAML config needs pyyaml: pip install 'titokcodec[convert]'") from None
    try:
        loader = yaml.SafeLoader(text)
        events = iter(loader.get_event, None)
        next(events)  # of the stream
        if not isinstance(next(events), yaml.DocumentStartEvent):
            return None
        value = _value(next(events), events, loader, DEEPEST)
        next(events)  # the document's end
        if not isinstance(next(events), yaml.StreamEndEvent):
            raise ValueError("it holds several documents")
        return value
    except ValueError:
        raise
    except Exception as error:  # its own kind, and what its slips on odd characters and numbers end in
        raise ValueError(str(error) or type(error).__name__) from None


def _value(event: yaml.Event, events: Iterator[yaml.Event], loader: yaml.SafeLoader, room: int) -> Any:
    """What begins with ``event``; the events after it that belong to it are taken."""
    import yaml

    line = event.start_mark.line + 1
    if getattr(event, "anchor", None) or getattr(event, "tag", None):
        raise ValueError(f"anchors, aliases and tags (&, *, !) are not taken, line {line} has one: write it out")
    if isinstance(event, yaml.ScalarEvent):
        return _plain(loader, event)
    if room == 0:
        raise ValueError(f"more than {DEEPEST} lists or names within each other, in line {line}")
    if isinstance(event, yaml.SequenceStartEvent):
        return [_value(item, events, loader, room - 1) for item in _until(events, yaml.SequenceEndEvent)]
    found = {}
    for key in _until(events, yaml.MappingEndEvent):
        if not isinstance(key, yaml.ScalarEvent):
            raise ValueError(f"a name in line {key.start_mark.line + 1} is no plain text")
        name = _value(key, events, loader, room - 1)
        found[name] = _value(next(events), events, loader, room - 1)
    return found


def _until(events: Iterator[yaml.Event], end: type[yaml.Event]) -> Iterator[yaml.Event]:
    """The next events, each the beginning of something, up to the end of what they are in."""
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _plain(loader: yaml.SafeLoader, event: yaml.ScalarEvent) -> Any:
    """None, a boolean or a number, if it is written like one and without quotes; a text otherwise."""
    import yaml

    tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit)
    make = {
        "null": loader.construct_yaml_null,
        "bool": loader.construct_yaml_bool,
        "int": loader.construct_yaml_int,
        "float": loader.construct_yaml_float,
    }.get(tag.rpartition(":")[2])
    if make is None:
        return event.value
    value = make(yaml.ScalarNode(tag, event.value))
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        raise ValueError(f"the number in line {event.start_mark.line + 1} is too large")
    return value
