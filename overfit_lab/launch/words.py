"""The words of a command line, looked at before Hydra reads them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from hydra.errors import HydraException

from overfit_lab.config import conf_directory
from overfit_lab.errors import UserError

# Groups of which none need be chosen, and what says so; None stands for what conf/config.yaml has.
_NONE: dict[str, str | None] = {"sweep": None, "experiment": None, "logger": "logger=tensorboard"}


def check_flags(words: Sequence[str]) -> None:
    """Refuse flags that Hydra does not know; left alone, it prints its usage over many lines.

    Raises:
        UserError: There is such a flag, or one lacks its value.
    """

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; allowed are KEY=VALUE, without dashes, and the flags of overfit-lab train --help")

    parser: argparse.ArgumentParser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args(list(words))


def choose_groups(words: Sequence[str]) -> list[str]:
    """Let `GROUP=null` choose none where that is possible.

    Hydra answers with a traceback to a choice that is no name: null, a number, a truth value.

    Args:
        words: Of a command line, flags among them.

    Returns:
        Words that Hydra can read.

    Raises:
        UserError: A choice is no name.
    """
    kept: list[tuple[str, str]] = []
    for word in words:
        override = _read(word)
        group = "" if override is None else override.key_or_group
        if override is None or override.is_delete() or not _is_group(group):
            kept.append(("", word))
        elif override.value() is None and group in _NONE and override.package is None:
            # The last word on a group counts.
            kept = [(other, earlier) for other, earlier in kept if other != group]
            if (instead := _NONE[group]) is not None:
                kept.append((group, instead))
        else:
            if not _is_named(override.value()):
                raise UserError(f"{word}: {_allowed(group)}")
            kept.append((group, word))
    return [word for _, word in kept]


def _read(word: str) -> Override | None:
    try:
        return None if word.startswith("-") else OverridesParser.create().parse_override(word)
    except HydraException:
        return None  # Hydra says it in its turn


def _is_group(key: str) -> bool:
    return key != "" and ("/" in key or (conf_directory() / key).is_dir())


def _is_named(value: object) -> bool:
    if isinstance(value, ChoiceSweep | list):
        return all(map(_is_named, value.list if isinstance(value, ChoiceSweep) else value))
    # A dict is merged into what the group has brought.
    return isinstance(value, str | QuotedString | Glob | dict)


def _allowed(group: str) -> str:
    names = sorted(file.stem for file in (conf_directory() / group).glob("*.yaml"))
    return f"allowed are {', '.join(names)}" if names else "allowed is the name of a choice"
