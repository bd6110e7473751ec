"""The subresources and reviews of the API: eviction, binding, token, log, scale."""

from collections.abc import Callable

from app.simulator.api import failures
from app.simulator.api.access import review_access, review_own_access, review_token
from app.simulator.api.call import Call, success
from app.simulator.api.eviction import evict
from app.simulator.api.identities import Authenticator
from app.simulator.api.patches import json_patch, merge_patch
from app.simulator.api.request import Response, json_response
from app.simulator.api.scale import read_scale, write_scale
from app.simulator.clock import as_rfc3339
from app.simulator.controllers.conditions import put_condition
from app.simulator.registry import Registry
from app.simulator.store import Object


class Subresources:
    """Answers calls of subresources and of kinds that are answered and not kept."""

    def __init__(
        self,
        registry: Registry,
        authenticator: Authenticator,
        *,
        logs_of: Callable[[Object], str],
    ) -> None:
        self.registry = registry
        self.authenticator = authenticator
        self._logs_of = logs_of
        self._answers: dict[str, Callable[[Call], Response]] = {
            "eviction": self._evict,
            "binding": self._bind,
            "token": self._request_token,
            "log": self._read_log,
            "scale": self._scale,
        }

    def answer(self, call: Call) -> Response | None:
        """The answer, None where the call is of an object itself or of its status."""
        sub = call.target.subresource
        if sub is not None and sub.name in self._answers:
            return self._answers[sub.name](call)
        return self._review(call) if call.target.resource.virtual else None

    def _evict(self, call: Call) -> Response:
        body = call.request.json_object()
        if body.get("kind", "Eviction") != "Eviction":
            raise failures.bad_request(f"{body['kind']} is no Eviction")
        name = body.get("metadata", {}).get("name", call.key[1])
        if name != call.key[1]:
            raise failures.bad_request("name in URL does not match name in Eviction object")
        pod = call.existing(self.registry)
        options, dry_run = call.options_of(body.get("deleteOptions") or {})
        evict(self.registry, pod, options, dry_run=dry_run)
        return json_response(success(201), status=201)

    def _bind(self, call: Call) -> Response:
        body = call.request.json_object()
        node = (body.get("target") or {}).get("name")
        if not node:
            cause = failures.required_value("target.name")
            raise failures.invalid("Binding", "", call.key[1], [cause])
        pod = call.existing(self.registry)
        held = pod.object["spec"].get("nodeName")
        if held or pod.object["metadata"].get("deletionTimestamp"):
            why = (
                f"pod {call.key[1]} is already assigned to node {held}"
                if held
                else "is being deleted"
            )
            raise failures.conflict("pods/binding", "", call.key[1], why)

        def assign(obj: Object) -> None:
            obj["spec"]["nodeName"] = node
            put_condition(obj["status"], "PodScheduled", "True", now=self.registry.clock.now())

        self.registry.modify("pods", pod.key, assign, dry_run=call.request.dry_run)
        return json_response(success(201), status=201)

    def _request_token(self, call: Call) -> Response:
        namespace, name = call.key
        answer = self.authenticator.request_token(namespace, name, call.request.json_object())
        answer["metadata"]["creationTimestamp"] = as_rfc3339(self.registry.clock.now())
        return json_response(answer, status=201)

    def _read_log(self, call: Call) -> Response:
        text = self._logs_of(call.existing(self.registry).object)
        tail = call.request.query.get("tailLines", "")
        if tail.isdigit():
            text = "".join(text.splitlines(keepends=True)[-int(tail) :]) if int(tail) else ""
        return Response(200, text.encode(), "text/plain")

    def _scale(self, call: Call) -> Response:
        record = call.existing(self.registry)
        if call.request.method == "GET":
            return json_response(read_scale(call.target.resource, record))
        scale = read_scale(call.target.resource, record)
        asked = call.request.json()
        if call.request.method == "PATCH":
            asked = (
                json_patch(scale, asked) if isinstance(asked, list) else merge_patch(scale, asked)
            )
        changed = write_scale(
            self.registry, call.target.resource, record, asked, dry_run=call.request.dry_run
        )
        return json_response(read_scale(call.target.resource, changed))

    def _review(self, call: Call) -> Response:
        review = call.request.json_object()
        review |= {
            "kind": call.target.resource.kind,
            "apiVersion": call.target.resource.api_version,
        }
        match call.plural:
            case "tokenreviews":
                answer = review_token(self.authenticator, review)
            case "subjectaccessreviews":
                answer = review_access(review)
            case "selfsubjectaccessreviews":
                answer = review_own_access(call.user, review)
            case _:
                answer = {
                    **review,
                    "metadata": {},
                    "status": {"userInfo": call.user.as_user_info()},
                }
        return json_response(answer, status=201)
