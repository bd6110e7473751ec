"""The root of what app/ raises. Each error names the object, what was tried and what the operator does next."""


class PitwallError(Exception):
    """Root of app's errors. `str(error)` is one clear sentence for a person."""


class SettingsError(PitwallError):
    """A setting is missing or wrong; names the variable."""


class StoreError(PitwallError):
    """The SQL store could not be opened, migrated, read or written."""


class RequestRefused(PitwallError):
    """A request was refused before anything was touched.

    `code` is a stable word for programs: limit, budget, capacity, protected, conflict,
    plan_changed, plan_expired, not_found, forbidden, unavailable, invalid.
    """

    def __init__(self, message: str, *, code: str = "invalid") -> None:
        super().__init__(message)
        self.code = code
