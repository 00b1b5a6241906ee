"""What the detector is taught: which anchors answer for which face, and how wrong they are.

Assignment is ATSS (Zhang et al., 2020): per face and level the nearest anchors are candidates, and those above the
mean plus one deviation of the candidates' overlap are positive. Scores learn the overlap of their own box (quality
focal loss, Li et al., 2020), boxes learn by DIoU, key points by smooth L1 in strides.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from demo.pack.detector_net import ANCHOR_SIZES, ANCHORS, STRIDES, WIDTHS

_CANDIDATES = 9


def make_anchors(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Centres (a, 2), sizes (a,) and strides (a,) of all anchors of an input, in the network's order of places."""
    centres, sizes, strides = [], [], []
    for stride, pair in zip(STRIDES, ANCHOR_SIZES, strict=True):
        rows, columns = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        place = torch.stack((columns, rows), dim=-1).reshape(-1, 1, 2).repeat(1, ANCHORS, 1).reshape(-1, 2) * stride
        centres.append(place.float())
        sizes.append(torch.tensor(pair).repeat(len(place) // ANCHORS))
        strides.append(torch.full((len(place),), float(stride)))
    return torch.cat(centres), torch.cat(sizes), torch.cat(strides)


def flatten_outputs(outputs: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """The levels' maps as (n, a), (n, a, 4) and (n, a, 10), anchors in the order of `make_anchors`."""
    parts: list[list[Tensor]] = [[], [], []]
    for level in outputs:
        for part, (maps, width) in enumerate(zip(level, WIDTHS, strict=True)):
            count, _, rows, columns = maps.shape
            flat = maps.view(count, ANCHORS, width, rows, columns).permute(0, 3, 4, 1, 2)
            parts[part].append(flat.reshape(count, -1, width).float())
    score, box, points = (torch.cat(part, dim=1) for part in parts)
    return score[..., 0], box, points


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) as x1, y1, x2, y2."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = (first[..., 2:] - first[..., :2]).clamp(min=0).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1)
    return shared / (areas - shared).clamp(min=1e-6)


def assign(faces: Tensor, centres: Tensor, sizes: Tensor, strides: Tensor) -> Tensor:
    """Index of the face each anchor answers for, -1 for none; faces is (f, 4+), all real."""
    half = sizes[:, None] / 2
    anchors = torch.cat((centres - half, centres + half), dim=1)
    ious = overlap(anchors[None], faces[:, None, :4])
    middle = (faces[:, :2] + faces[:, 2:4]) / 2
    distance = (centres[None] - middle[:, None]).norm(dim=-1)
    candidates = []
    for stride in STRIDES:
        level = torch.nonzero(strides == stride)[:, 0]
        nearest = distance[:, level].topk(min(_CANDIDATES * ANCHORS, len(level)), largest=False).indices
        candidates.append(level[nearest])
    chosen = torch.cat(candidates, dim=1)
    found = ious.gather(1, chosen)
    floor = found.mean(1, keepdim=True) + found.std(1, keepdim=True)
    x, y = centres[chosen][..., 0], centres[chosen][..., 1]
    inside = (x > faces[:, None, 0]) & (y > faces[:, None, 1]) & (x < faces[:, None, 2]) & (y < faces[:, None, 3])
    good = (found >= floor) & inside
    quality = torch.full_like(ious, -1.0)
    quality.scatter_(1, chosen, torch.where(good, found, torch.full_like(found, -1.0)))
    best, owner = quality.max(0)
    return torch.where(best > 0, owner, torch.full_like(owner, -1))


def detector_loss(
    outputs: list[tuple[Tensor, Tensor, Tensor]], truth: Tensor, anchors: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Score, box and key-point losses of a batch; truth is (n, f, 14), rows that begin below -0.5 are padding."""
    centres, sizes, strides = anchors
    score, box, points = flatten_outputs(outputs)
    images, owners = [], []
    for _index, rows in enumerate(truth):
        faces = rows[rows[:, 2] > 0]
        owner = torch.full((len(centres),), -1)
        if len(faces):
            owner = assign(faces, centres, sizes, strides)
        owners.append(owner)
        images.append(faces)
    owner = torch.stack(owners)
    target = torch.zeros_like(score)
    where = torch.nonzero(owner >= 0)
    if not len(where):
        weight = torch.sigmoid(score).detach() ** 2
        loss = (functional.binary_cross_entropy_with_logits(score, target, reduction="none") * weight).sum()
        return loss, box.sum() * 0, points.sum() * 0
    image, anchor = where[:, 0], where[:, 1]
    rows = torch.stack([images[i][owner[i, a]] for i, a in where.tolist()])
    centre, stride = centres[anchor], strides[anchor][:, None]
    guess = box[image, anchor] * stride
    corners = torch.cat((centre - guess[:, :2], centre + guess[:, 2:]), dim=1)
    iou = overlap(corners, rows[:, :4])
    span = (torch.maximum(corners[:, 2:], rows[:, 2:4]) - torch.minimum(corners[:, :2], rows[:, :2])).square().sum(1)
    apart = ((corners[:, :2] + corners[:, 2:] - rows[:, :2] - rows[:, 2:4]) / 2).square().sum(1)
    target[image, anchor] = iou.detach().clamp(0, 1)
    weight = (target - torch.sigmoid(score).detach()).abs() ** 2
    count = max(1, len(where))
    score_loss = (functional.binary_cross_entropy_with_logits(score, target, reduction="none") * weight).sum() / count
    box_loss = (1 - iou + apart / span.clamp(min=1e-6)).mean()
    marks = (rows[:, 4:14].reshape(-1, 5, 2) - centre[:, None]).reshape(-1, 10) / stride
    face_size = ((rows[:, 2:4] - rows[:, :2]).prod(1).sqrt()[:, None] / stride).clamp(min=1.0)
    point_loss = functional.smooth_l1_loss(points[image, anchor] / face_size, marks / face_size, beta=0.02)
    return score_loss, box_loss, point_loss
