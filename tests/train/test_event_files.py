"""The log of a run that goes on tells every step once."""

import tensorflow as tf

from train import event_files


def write(folder, steps):
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for step in steps:
            tf.summary.scalar("loss", 1.0 / step, step=step)
    writer.close()


def steps_in(folder):
    found = []
    for path in sorted(folder.iterdir()):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            found += [event.step for value in event.summary.value if value.tag == "loss"]
    return found


def test_later_steps_are_dropped_and_earlier_ones_stay(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    assert event_files.drop_after(str(tmp_path), 2) == 2
    assert steps_in(tmp_path) == [1, 2]
    assert event_files.drop_after(str(tmp_path), 2) == 0


def test_a_file_with_nothing_to_drop_is_not_touched(tmp_path):
    write(tmp_path, [1, 2])
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    event_files.drop_after(str(tmp_path), 2)
    assert (path.read_bytes(), len(list(tmp_path.iterdir()))) == (before, 1)


def test_what_was_being_written_when_the_process_was_killed_is_cut_off(tmp_path):
    """TensorBoard stops at a record that is torn, and would show nothing of what follows."""
    write(tmp_path, [1, 2, 3])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert event_files.drop_after(str(tmp_path), 3) == 0
    assert steps_in(tmp_path) == [1, 2]


def test_other_files_and_missing_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert event_files.drop_after(str(tmp_path), 0) == 0
    assert event_files.drop_after(str(tmp_path / "nowhere"), 0) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
