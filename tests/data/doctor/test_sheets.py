import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from planted_faults import description, image_of, truncate
from segformer.config import Preprocessing
from segformer.data.doctor.sheets import augmented_sheet, contact_sheet
from segformer.recipes import find_recipe


def test_sheets_show_images_beside_colored_masks(clean, tmp_path):
    sheet = contact_sheet(clean)
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3
    colors = {tuple(color) for color in sheet.reshape(-1, 3).tolist()}
    assert {tuple(color) for color in description(clean)["palette"]} <= colors
    recipe = find_recipe("folder_b0")
    recipe = replace(
        recipe,
        data=replace(recipe.data, root=str(clean), crop=(96, 96), photometric=False),
        preprocessing=Preprocessing(mean=(10.0, 20.0, 30.0), std=(50.0, 60.0, 70.0)),
    )
    augmented = augmented_sheet(recipe, count=3)
    assert augmented.shape[1:] == sheet.shape[1:]
    assert np.array_equal(augmented, augmented_sheet(recipe, count=3))
    for path in clean.glob("images/*/*"):
        Image.new("RGB", Image.open(path).size, (200, 100, 50)).save(path, quality=100)
    tile = augmented_sheet(recipe, count=1)[60, 60].astype(int)
    assert np.abs(tile - [200, 100, 50]).max() <= 3


def test_the_contact_sheet_leaves_out_what_can_not_be_read(small_data):
    truncate(image_of(small_data, 0))
    assert contact_sheet(small_data).shape[2] == 3
    shutil.rmtree(small_data / "masks" / "train")
    shutil.rmtree(small_data / "masks" / "val")
    with pytest.raises(ValueError, match="none could be read"):
        contact_sheet(small_data)
