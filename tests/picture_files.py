"""Images and masks for folders of one's own."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image


def write(path: Path, pixels: np.ndarray) -> None:
    """Write a TIFF or another picture, and its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
