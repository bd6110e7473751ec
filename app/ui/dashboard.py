"""The page's script: run by Streamlit anew for each visit and each click; app.ui.server starts it."""

from pathlib import Path

import streamlit as st

from app.ui import navigation
from app.ui.components import kit, pulse

_BROWSER = Path(__file__).parent / "components" / "browser"

st.set_page_config(page_title="Pitwall", page_icon=str(_BROWSER / "icon.png"), layout="wide")
kit.mount_kit()
st.logo(str(_BROWSER / "logo.svg"), size="medium")
chosen = st.navigation(navigation.pages(), position="top")
with st.container(key="pulse"):
    pulse.show()
chosen.run()
