"""A pytest plugin that lets torchvision be imported beside a torch that it was not built for: `make test-versions`.

torchvision's own operators cannot be loaded there, and its import asks for two of them. Nothing here calls them.
"""

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
