"""The keys of a synthetic source, checked as the schemas check theirs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pydantic import ConfigDict, ValidationError, validate_call

from overfit_lab.config import refuse

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def checked(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Check the arguments of a source by their annotations.

    Raises:
        UserError: When the function is called, with the first of them that is missing, unknown or not allowed.
    """
    call: Callable[Arguments, Result] = validate_call(config=ConfigDict(strict=True))(function)

    @functools.wraps(function)
    def checking(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return call(*args, **kwargs)
        except ValidationError as error:
            raise refuse(error, "data") from error

    return checking
