from planted_faults import absent_class, duplicate, ignored_mask, mask_without_image, mixed_channels
from segformer.data.doctor.diagnosis import diagnose
from segformer.data.sources.folder import open_source


def test_a_clean_data_set_is_ready(clean):
    for cheap in (False, True):
        diagnosis = diagnose(clean, cheap=cheap)
        assert diagnosis.ready
        assert diagnosis.findings == ()
        assert diagnosis.notes == ()


def test_ready_means_that_the_folder_opens_and_every_sample_can_be_read(clean):
    for plant in (mask_without_image, ignored_mask, absent_class, duplicate, mixed_channels):
        plant(clean)
    assert diagnose(clean).ready
    source = open_source(str(clean))
    for split in source.splits:
        for sample in source.samples(split):
            source.table.apply(sample.read()[1], sample.name)
