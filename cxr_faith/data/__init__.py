"""Data: samples, the manifest that lists them, and pictures brought to model size."""

from cxr_faith.data.images import Geometry, ImageError, fit, fit_mask, load_image, load_mask
from cxr_faith.data.sample import KINDS, MANIFEST_SCHEMA, Box, Sample, SampleError

__all__ = [
    "KINDS",
    "MANIFEST_SCHEMA",
    "Box",
    "Geometry",
    "ImageError",
    "Sample",
    "SampleError",
    "fit",
    "fit_mask",
    "load_image",
    "load_mask",
]
