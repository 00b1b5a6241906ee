"""Why an inference engine does not start. Operators read these at the start of a process; callers never see them."""

from __future__ import annotations


class InferenceError(Exception):
    """Something about the models or the device is wrong."""


class ModelPackError(InferenceError):
    """The pack cannot be used: missing, incomplete, or not the kind of model this house runs."""


class ProviderError(InferenceError):
    """The execution provider that was asked for is not there or does not take the model."""


class RewriteError(InferenceError):
    """A graph rewrite does not fit the model or changes what it computes."""
