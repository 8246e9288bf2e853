from planted_faults import off_by_one
from segformer.data.doctor.diagnosis import diagnose


def test_without_a_description_the_classes_are_counted(small_data):
    (small_data / "dataset.json").unlink()
    assert diagnose(small_data).classes == ("class_0", "class_1", "class_2")
    assert diagnose(small_data).findings == ()
    off_by_one(small_data)
    assert [(f.kind, f.severity) for f in diagnose(small_data).findings] == [("off_by_one", "warning")] * 2
