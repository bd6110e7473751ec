"""The page's script: run by Streamlit anew for each visit and each click; app.ui.server starts it."""

from pathlib import Path

import streamlit as st

from app.ui import navigation, sign_in
from app.ui.components import kit, pulse, search

_BROWSER = Path(__file__).parent / "components" / "browser"

st.set_page_config(page_title="Pitwall", page_icon=str(_BROWSER / "icon.png"), layout="wide")
kit.mount_kit()
st.logo(str(_BROWSER / "logo.svg"), size="medium")
passed = sign_in.passed()
chosen = st.navigation(navigation.pages(), position="top" if passed else "hidden")
if passed:
    with st.container(key="pulse", horizontal=True, vertical_alignment="center", gap="small"):
        search.show()
        pulse.show()
        sign_in.show_person()
    chosen.run()
