from segformer.data.doctor.diagnosis import diagnose


def test_masks_with_a_suffix_are_told_by_one_command(small_data):
    for path in small_data.glob("masks/*/*.png"):
        path.rename(path.with_stem(f"{path.stem}_mask"))
    error, warning = diagnose(small_data).findings
    assert (error.kind, warning.kind) == ("image_without_mask", "mask_without_image")
    assert "'_mask'" in error.fix
    assert error.command.startswith("for f in ")
