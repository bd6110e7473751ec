"""The API's verbs: a request in, an answer or a watch out. No clock but the store's, no sockets."""

from collections.abc import Callable
from dataclasses import replace

import msgspec

from app.simulator.api import failures
from app.simulator.api.access import Attributes, authorize
from app.simulator.api.call import Call, success
from app.simulator.api.identities import Authenticator, impersonated
from app.simulator.api.interference import Switchboard
from app.simulator.api.listing import (
    read_page,
    selection_of,
    watch_start,
    within_namespace,
)
from app.simulator.api.patches import (
    PatchMismatch,
    json_patch,
    merge_patch,
    strategic_merge_patch,
)
from app.simulator.api.request import (
    Request,
    Response,
    failure_response,
    json_response,
    parse_target,
)
from app.simulator.api.static import answer_static, open_to_all
from app.simulator.api.subresources import Subresources
from app.simulator.api.table import content_type_of, form_of, list_body, object_encoder
from app.simulator.api.watch import Watch
from app.simulator.registry import Registry
from app.simulator.store import Object, Record

# A watch without timeoutSeconds lasts from 30 to 60 minutes on a kube-apiserver.
WATCH_SECONDS = 1800.0
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_ORPHAN_WARNING = (
    '299 - "child pods are preserved by default when jobs are deleted; set '
    "propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress "
    'this warning"'
)


class Api:
    """Answers requests over a registry. `logs_of` gives the text of a pod's log."""

    def __init__(
        self, registry: Registry, *, logs_of: Callable[[Object], str] = lambda pod: ""
    ) -> None:
        self.registry = registry
        self.authenticator = Authenticator(registry)
        self.subresources = Subresources(registry, self.authenticator, logs_of=logs_of)
        self.switchboard = Switchboard()
        self.watches: set[Watch] = set()

    def handle(self, request: Request) -> Response | Watch:
        """Answer one request; failures become Status bodies."""
        try:
            interference = self.switchboard.take(request)
            if interference is not None and not interference.after_effect:
                raise interference.failure()
            answer = self._answer(request)
            if interference is not None:
                raise interference.failure()
            return answer
        except failures.ApiFailure as failure:
            return failure_response(failure)

    def _answer(self, request: Request) -> Response | Watch:
        if open_to_all(request.path):
            return answer_static(request)
        user = self.authenticator.authenticate(request.headers)
        if user is None:
            raise failures.unauthorized()
        user = impersonated(user, request.headers)
        path = request.path.rstrip("/")
        if path.count("/") < (3 if path.startswith("/api/") else 4) or "/openapi/" in path:
            return answer_static(request)
        target = parse_target(path)
        verb = target.verb(request)
        authorize(
            user,
            Attributes(
                verb=verb,
                group=target.resource.group,
                resource=target.resource.plural,
                subresource=target.subresource.name if target.subresource else "",
                namespace=target.namespace or "",
                name=target.name or "",
            ),
        )
        supported = target.subresource.verbs if target.subresource else target.resource.verbs
        if verb not in supported:
            raise failures.method_not_allowed()
        return self._dispatch(Call(request, target, user), verb)

    def _dispatch(self, call: Call, verb: str) -> Response | Watch:
        answer = self.subresources.answer(call)
        if answer is not None:
            return answer
        match verb:
            case "get":
                return self._one(call, call.existing(self.registry), status=200)
            case "list":
                return self._list(call)
            case "watch":
                return self._watch(call)
            case "create":
                return self._create(call)
            case "update":
                return self._update(call)
            case "patch":
                return self._patch(call)
            case "delete":
                return self._delete(call)
            case _:
                return self._delete_collection(call)

    def _form(self, call: Call) -> str:
        return form_of(call.request.headers.get("accept", ""))

    def _one(
        self,
        call: Call,
        record: Record,
        *,
        status: int,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Response:
        form = self._form(call)
        encode = object_encoder(
            call.target.resource,
            form,
            now=self.registry.clock.now,
            include=call.request.query.get("includeObject", "Metadata"),
        )
        body = record.encoded if encode is None else encode(record.object)
        return Response(status, body, content_type_of(form), headers)

    def _list(self, call: Call) -> Response:
        page = read_page(self.registry, call.target, call.request)
        form = self._form(call)
        body = list_body(
            call.target.resource,
            page.records,
            form=form,
            now=self.registry.clock.now(),
            include=call.request.query.get("includeObject", "Metadata"),
            list_metadata=page.metadata,
        )
        if form.startswith("PartialObjectMetadata"):
            form = "PartialObjectMetadataList"
        return Response(200, body, content_type_of(form))

    def _watch(self, call: Call) -> Watch:
        request, resource = call.request, call.target.resource
        selection = selection_of(call.target, request)
        form = self._form(call)
        try:
            timeout = float(request.query.get("timeoutSeconds") or WATCH_SECONDS)
        except ValueError as error:
            raise failures.bad_request("timeoutSeconds is not a number") from error
        revision = watch_start(self.registry, request)
        initial_events = request.query.get("sendInitialEvents") == "true"
        watch = Watch(
            self.registry.store,
            resource,
            passes=within_namespace(selection),
            encode=object_encoder(
                resource,
                form,
                now=self.registry.clock.now,
                include=request.query.get("includeObject", "Metadata"),
            ),
            bookmarks=request.query.get("allowWatchBookmarks") in ("true", "1"),
            timeout_seconds=timeout,
        )
        watch.content_type = content_type_of(form)
        watch.begin(
            revision,
            initial=initial_events
            or (revision is None and "sendInitialEvents" not in request.query),
            initial_end=initial_events and watch.bookmarks,
        )
        if not watch.closed:
            self.watches.add(watch)
            watch.on_close = lambda: self.watches.discard(watch)
        return watch

    def _body(self, call: Call) -> Object:
        """The object of a request, held to the address that it was sent to."""
        obj = call.request.json_object()
        resource, target = call.target.resource, call.target
        if obj.get("kind", resource.kind) != resource.kind:
            raise failures.bad_request(
                f"{obj['kind']} in version {obj.get('apiVersion')!r} cannot be handled as a "
                f"{resource.kind}"
            )
        if obj.get("apiVersion", resource.api_version) != resource.api_version:
            raise failures.bad_request(
                f"the API version in the data ({obj['apiVersion']}) does not match the expected "
                f"API version ({resource.api_version})"
            )
        metadata = obj.setdefault("metadata", {})
        if not isinstance(metadata, dict):
            raise failures.bad_request("metadata is not an object")
        if target.namespace is not None:
            if metadata.get("namespace") not in (None, "", target.namespace):
                raise failures.bad_request(
                    "the namespace of the provided object does not match the namespace sent on "
                    "the request"
                )
            metadata["namespace"] = target.namespace
        elif not resource.namespaced:
            metadata.pop("namespace", None)
        if target.name and metadata.get("name", target.name) != target.name:
            raise failures.bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the "
                f"URL ({target.name})"
            )
        return obj

    def _create(self, call: Call) -> Response:
        obj = self._body(call)
        if obj["metadata"].get("resourceVersion"):
            raise failures.bad_request("resourceVersion should not be set on objects to be created")
        if call.target.resource.has_status and call.plural != "nodes":
            obj.pop("status", None)
        record = self._shaped(lambda: self.registry.create(
            call.plural, obj, dry_run=call.request.dry_run
        ))  # fmt: skip
        return self._one(call, record, status=201)

    def _shaped(self, store: Callable[[], Record]) -> Record:
        """A body of the wrong shape is the client's fault, answered 400 as by a decoder."""
        try:
            return store()
        except (AttributeError, TypeError, KeyError) as error:
            raise failures.bad_request(f"the object cannot be decoded: {error!r}") from error

    def _update(self, call: Call) -> Response:
        obj = self._body(call)
        obj["metadata"]["name"] = call.key[1]
        return self._replace(call, call.existing(self.registry), obj)

    def _replace(self, call: Call, old: Record, obj: Object) -> Response:
        sub = call.target.subresource.name if call.target.subresource else None
        record = self._shaped(lambda: self.registry.replace(
            call.plural, old, obj, subresource=sub, dry_run=call.request.dry_run
        ))  # fmt: skip
        return self._one(call, record, status=200)

    def _patch(self, call: Call) -> Response:
        old = call.existing(self.registry)
        return self._replace(call, old, self._patched(call, old))

    def _patched(self, call: Call, old: Record) -> Object:
        content_type = call.request.headers.get("content-type", "").split(";")[0].strip()
        if content_type not in (_MERGE, _STRATEGIC, _JSON_PATCH):
            raise failures.unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types "
                f"include: {_JSON_PATCH}, {_MERGE}, {_STRATEGIC}"
            )
        patch = call.request.json()
        resource = call.target.resource
        try:
            if content_type == _JSON_PATCH:
                patched = json_patch(msgspec.json.decode(old.encoded), patch)
            elif not isinstance(patch, dict):
                raise failures.bad_request("a merge patch is a JSON object")
            elif content_type == _MERGE:
                patched = merge_patch(msgspec.json.decode(old.encoded), patch)
            else:
                patched = strategic_merge_patch(msgspec.json.decode(old.encoded), patch)
        except PatchMismatch as error:
            raise failures.ApiFailure(
                422, "Invalid", "the server rejected our request due to an error in our request: "
                f"{error}",
            ) from error  # fmt: skip
        if not isinstance(patched, dict) or not isinstance(patched.get("metadata"), dict):
            raise failures.bad_request(f"the patch leaves no {resource.kind}")
        for field in ("name", "namespace"):
            if patched["metadata"].get(field) != old.object["metadata"].get(field):
                raise failures.bad_request(f"a patch may not change metadata.{field}")
        return patched

    def _delete(self, call: Call) -> Response:
        options, dry_run = call.delete_options()
        headers: tuple[tuple[str, str], ...] = ()
        if call.plural == "jobs" and options.propagation is None:
            # batch/v1 Jobs leave their pods behind unless told otherwise.
            options = replace(options, propagation="Orphan")
            headers = (("warning", _ORPHAN_WARNING),)
        deletion = self.registry.delete(call.plural, call.key, options, dry_run=dry_run)
        if not deletion.gone or call.plural == "pods":
            return self._one(call, deletion.record, status=200, headers=headers)
        details = {
            "name": call.key[1],
            "group": call.target.resource.group,
            "kind": call.plural,
            "uid": deletion.record.object["metadata"]["uid"],
        }
        return json_response(success(200, details), headers=headers)

    def _delete_collection(self, call: Call) -> Response:
        options, dry_run = call.delete_options()
        page = read_page(self.registry, call.target, call.request)
        for record in page.records:
            self.registry.delete(call.plural, record.key, options, dry_run=dry_run)
        body = list_body(
            call.target.resource,
            page.records,
            form="",
            now=self.registry.clock.now(),
            include="None",
            list_metadata=page.metadata,
        )
        return Response(200, body)
