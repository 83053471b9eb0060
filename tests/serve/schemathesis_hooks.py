"""What schemathesis sends as an image: small ones of noise."""

import io

import numpy as np
import schemathesis
from hypothesis import strategies as st
from PIL import Image


@st.composite
def pngs(draw):
    width, height, seed = (draw(st.integers(1, most)) for most in (24, 24, 9))
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, format="PNG")
    return file.getvalue()


schemathesis.openapi.media_type("image/png", pngs())
