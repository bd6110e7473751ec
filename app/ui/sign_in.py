"""The door of the page: who has not signed in sees how to, and nothing else.

The address that was asked for is kept in the tab over the way to the provider, which Streamlit would lose.
"""

import streamlit as st

from app.identity import SignInRefused
from app.ui import context
from app.ui.components import kit, parts


def passed() -> bool:
    """Whether who is at the page may see it; draws the door where they may not."""
    if context.settings().sign_in == "none":
        return True
    try:
        identity = context.identity()
    except SignInRefused as refused:
        _door(str(refused))
        return False
    if identity is None:
        _door("")
        return False
    if context.settings().sign_in == "oidc":
        with st.container(key="door-back"):
            kit.mount("door", {"back": True}, key="door-part")
    return True


def show_person() -> None:
    """Who is signed in, with the way out; in the header."""
    settings = context.settings()
    if settings.sign_in == "none":
        return
    identity = context.signed_in()
    with st.popover(identity.username.rpartition(":")[2] or identity.username, type="tertiary"):
        st.text(f"{identity.username}, {identity.role}")
        if settings.sign_in == "oidc" and st.button("Sign out", key="sign-out", width="stretch"):
            st.logout()


def _door(refusal: str) -> None:
    with st.container(key="door", horizontal_alignment="center", gap="medium"):
        kit.mount("door", {"back": False, "cluster": context.cluster()}, key="door-part")
        if refusal:
            parts.notes("door-refusal", [parts.note(refusal, "watch")])
        if context.settings().sign_in == "oidc":
            if st.button("Sign in", type="primary", key="sign-in"):
                st.login()
            if refusal and st.button("Sign out", type="tertiary", key="sign-out"):
                st.logout()
