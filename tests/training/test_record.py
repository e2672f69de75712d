from perceptual_training import record


def test_a_log_file_has_a_line_at_least_every_minute(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "INTERVAL", -1.0)
    with record.Record(tmp_path, 5, 40, 1) as kept:
        kept.advance()
        monkeypatch.setattr(record, "INTERVAL", 60.0)
        kept.advance()
    assert (tmp_path / "train.log").read_text() == "6/40\n"
