"""One call of the API: a request with what it addresses and who makes it."""

from dataclasses import dataclass
from typing import Any

from app.simulator.api import failures
from app.simulator.api.identities import User
from app.simulator.api.request import Request, Target
from app.simulator.registry import DeleteOptions, Registry
from app.simulator.store import Key, Object, Record


@dataclass(frozen=True)
class Call:
    """A request with what it addresses and who makes it."""

    request: Request
    target: Target
    user: User

    @property
    def plural(self) -> str:
        return self.target.resource.plural

    @property
    def key(self) -> Key:
        return (self.target.namespace or "", self.target.name or "")

    def existing(self, registry: Registry) -> Record:
        """The object that is addressed. Raises ApiFailure 404."""
        record = registry.get(self.plural, self.key)
        if record is None:
            raise failures.not_found(self.plural, self.target.resource.group, self.key[1])
        return record

    def delete_options(self) -> tuple[DeleteOptions, bool]:
        """What the query and the body say, and whether it is a dry run."""
        body: Object = {}
        if self.request.body.strip():
            body = self.request.json_object()
            if body.get("kind", "DeleteOptions") != "DeleteOptions":
                raise failures.bad_request(f"{body['kind']} is no DeleteOptions")
        return self.options_of(body)

    def options_of(self, body: Object) -> tuple[DeleteOptions, bool]:
        """What the query and these DeleteOptions say. Raises ApiFailure 400."""
        query = self.request.query
        grace: Any = query.get("gracePeriodSeconds", body.get("gracePeriodSeconds"))
        propagation = query.get("propagationPolicy", body.get("propagationPolicy"))
        if propagation is None and (orphan := body.get("orphanDependents")) is not None:
            propagation = "Orphan" if orphan else "Background"
        if propagation not in (None, "Background", "Foreground", "Orphan"):
            raise failures.bad_request(f"propagationPolicy {propagation!r} is not supported")
        preconditions = body.get("preconditions") or {}
        try:
            grace_seconds = None if grace is None else int(grace)
        except (TypeError, ValueError) as error:
            raise failures.bad_request(f"gracePeriodSeconds {grace!r} is not a number") from error
        options = DeleteOptions(
            grace_seconds=grace_seconds,
            uid=preconditions.get("uid"),
            resource_version=preconditions.get("resourceVersion"),
            propagation=propagation,
        )
        return options, self.request.dry_run or body.get("dryRun") == ["All"]


def success(code: int, details: Object | None = None) -> Object:
    """A Status of success."""
    found: Object = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
    }
    if details is not None:
        return {**found, "details": details}
    return {**found, "code": code}
