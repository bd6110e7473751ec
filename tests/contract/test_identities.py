"""Tokens bound to nodes, reviews of tokens and permissions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cluster import Cluster
from kubelet import Grounds

from k8s.client import Impersonation
from k8s.errors import ApiError
from k8s.resources import NODES
from k8s.tokens import TokenIdentity, request_token, review_access, review_token

pytestmark = pytest.mark.contract
AUDIENCE = "pitwall"


@pytest.fixture
def field(grounds: Grounds) -> Grounds:
    grounds.add_nodes(1)
    return grounds


def token_of(field: Grounds, audience: str | None = AUDIENCE) -> str:
    node = field.cluster.node(field.nodes[0])
    return request_token(
        field.cluster.connection,
        field.namespace,
        "default",
        audience,
        bound_node=(node.metadata.name, node.metadata.uid),
    ).token


def test_a_bound_token_proves_its_account_its_audience_and_its_node(field):
    identity = review_token(field.cluster.connection, token_of(field), [AUDIENCE])
    assert identity.authenticated
    assert identity.username == f"system:serviceaccount:{field.namespace}:default"
    assert f"system:serviceaccounts:{field.namespace}" in identity.groups
    assert identity.node_name == field.nodes[0]
    assert identity.node_uid == field.cluster.node(field.nodes[0]).metadata.uid
    assert identity.audiences == (AUDIENCE,)
    assert identity.error == ""


def test_a_token_ends_when_it_says(field):
    node = field.cluster.node(field.nodes[0]).metadata
    token = request_token(
        field.cluster.connection,
        field.namespace,
        "default",
        AUDIENCE,
        bound_node=(node.name, node.uid),
        lifetime_seconds=600,
    )
    left = token.expires_at - datetime.now(UTC)
    assert timedelta(minutes=9) < left < timedelta(minutes=11)


def test_a_lifetime_that_is_too_short_is_refused(field):
    with pytest.raises(ApiError) as raised:
        request_token(
            field.cluster.connection, field.namespace, "default", AUDIENCE, lifetime_seconds=60
        )
    assert (raised.value.status, raised.value.reason) == (422, "Invalid")


def test_a_token_for_another_audience_is_not_ours(field):
    connection = field.cluster.connection
    assert not review_token(connection, token_of(field, "elsewhere"), [AUDIENCE]).authenticated
    assert not review_token(connection, token_of(field, None), [AUDIENCE]).authenticated
    assert not review_token(connection, token_of(field)).authenticated
    assert review_token(connection, token_of(field, None)).authenticated


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c"])
def test_what_is_no_token_is_told_so(cluster: Cluster, token):
    identity = review_token(cluster.connection, token, [AUDIENCE])
    assert not identity.authenticated
    assert identity.error


def test_a_token_that_was_tampered_with_proves_nothing(field):
    head, body, signature = token_of(field).split(".")
    swapped = f"{head}.{body}.{signature[::-1]}"
    assert not review_token(field.cluster.connection, swapped, [AUDIENCE]).authenticated


def test_a_token_dies_with_its_node(field):
    connection, token = field.cluster.connection, token_of(field)
    assert review_token(connection, token, [AUDIENCE]).authenticated
    field.kubelets.dead.add(field.nodes[0])
    field.cluster.delete(NODES.path(field.nodes[0]))
    # The authenticator may hold an answer for some seconds.
    field.cluster.until(
        lambda: not review_token(connection, token, [AUDIENCE]).authenticated,
        "the token is refused",
    )


def test_a_token_is_not_given_for_a_node_that_is_not_there(field):
    with pytest.raises(ApiError) as raised:
        request_token(
            field.cluster.connection,
            field.namespace,
            "default",
            AUDIENCE,
            bound_node=("no-such-node", "00000000-0000-0000-0000-000000000000"),
        )
    assert raised.value.status in (404, 409)


def test_an_account_that_is_not_there_gets_no_token(cluster: Cluster):
    with pytest.raises(ApiError) as raised:
        request_token(cluster.connection, "default", "no-such-account", AUDIENCE)
    assert (raised.value.status, raised.value.reason) == (404, "NotFound")


def test_the_masters_may_evict_and_nobody_may_not(cluster: Cluster):
    connection = cluster.connection
    master = TokenIdentity(True, "ada", ("system:masters", "system:authenticated"))
    nobody = TokenIdentity(True, "nobody", ("system:authenticated",))
    for verb, resource in (("create", "pods/eviction"), ("patch", "nodes")):
        assert review_access(connection, master, verb, "", resource, namespace="default").allowed
        answer = review_access(connection, nobody, verb, "", resource, namespace="default")
        assert not answer.allowed


def test_whom_nobody_knows_may_nothing(cluster: Cluster):
    answer = review_access(cluster.connection, TokenIdentity(False), "get", "", "nodes")
    assert not answer.allowed


def test_an_account_that_may_not_review_tokens_is_refused(field):
    nobody = field.cluster.connection.impersonating(Impersonation("nobody", ("nobodies",)))
    with pytest.raises(ApiError) as raised:
        review_token(nobody, token_of(field), [AUDIENCE])
    assert (raised.value.status, raised.value.reason) == (403, "Forbidden")


def test_a_caller_whose_token_is_not_valid_is_refused(cluster: Cluster, field):
    with pytest.raises(ApiError) as raised:
        cluster.connection_as("nonsense").request("GET", NODES.path())
    assert (raised.value.status, raised.value.reason) == (401, "Unauthorized")


def test_a_caller_by_token_is_its_account_and_may_only_what_that_may(cluster: Cluster, field):
    token = request_token(cluster.connection, field.namespace, "default", None).token
    with pytest.raises(ApiError) as raised:
        cluster.connection_as(token).request("GET", NODES.path())
    assert (raised.value.status, raised.value.reason) == (403, "Forbidden")
    assert f"system:serviceaccount:{field.namespace}:default" in raised.value.message
