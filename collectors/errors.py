"""The errors of the collectors: one root, each naming the object, the attempt and the remedy."""

from __future__ import annotations


class CollectorError(Exception):
    """Root of everything that collectors raise on purpose."""


class ReportError(CollectorError):
    """A report that cannot be taken; the text says which field and what is wrong with it."""


class ReportTooLargeError(ReportError):
    """A report over MAX_REPORT_BYTES, or over MAX_DECODED_BYTES once unpacked."""


class SchemaVersionError(ReportError):
    """A report in a schema version that this release does not read."""


class NvmlUnavailableError(CollectorError):
    """NVML could not be loaded or initialised."""


class SpoolError(CollectorError):
    """The spool directory cannot be read or written."""


class TokenError(CollectorError):
    """The token file cannot be read or is empty."""


class SourceError(CollectorError):
    """A source (Prometheus, the kubelet, the kernel log) did not answer as it should."""


class RulesError(CollectorError):
    """The site's file of rules cannot be used; the text names the entry and the field."""


class CaptureError(CollectorError):
    """A file given to be inspected is not what it should be; the text says which and why."""
