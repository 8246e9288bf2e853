import pytest
import torch
import torch.nn.functional as F

from segformer.ops.bilinear import source_rows, upsample_points, upsample_rows


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(40, 150), (7, 9), (1, 1), (3, 200), (10, 13)])
def test_rows_and_points_are_those_of_the_whole(size: tuple[int, int], align_corners: bool) -> None:
    maps = torch.randn(2, 5, 10, 13, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)
    for start in range(0, size[0], 3):
        rows = slice(start, min(start + 3, size[0]))
        torch.testing.assert_close(upsample_rows(maps, 10, size, rows, align_corners), whole[:, :, rows])
        sources = source_rows(10, size[0], rows, align_corners)
        some = upsample_rows(maps[:, :, sources], 10, size, rows, align_corners)
        assert torch.equal(some, upsample_rows(maps, 10, size, rows, align_corners))
    ys, xs = torch.arange(size[0]).repeat_interleave(size[1]), torch.arange(size[1]).repeat(size[0])
    points = upsample_points(maps[0], size, ys, xs, align_corners)
    torch.testing.assert_close(points, whole[0].flatten(1).T)


def test_half_precision_is_upcast_first() -> None:
    maps = torch.randn(1, 3, 4, 4).half()
    expected = F.interpolate(maps.float(), (16, 16), mode="bilinear")
    torch.testing.assert_close(upsample_rows(maps, 4, (16, 16), slice(0, 16)), expected)
